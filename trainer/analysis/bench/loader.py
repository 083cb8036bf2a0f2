"""The loader measured on one core: prepared rows into batches of KeyedJaggedTensors, cached and from the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from trainer.analysis.bench.figures import Findings
from trainer.analysis.bench.one_process import in_one_process
from trainer.analysis.bench.place import TEXT_BYTES_PER_ROW, BenchPlace
from trainer.analysis.bench.prepare import check_rows
from trainer.data.manifest import DataManifest
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.data.reading.source import PreparedSource

WINDOW_ROWS = 1_048_576
_LEAST_FILE_ORDER, _LEAST_SHUFFLED, _LEAST_COLD = 20e6, 4e6, 0.8
_DAYS = 2
_BYTES_PER_ROW = TEXT_BYTES_PER_ROW + 400  # what is prepared and its scratch files
_BLOCK_BYTES = 8 << 20
_COPIED_BYTES = 256 << 20
_COLD_SHARE = 0.95  # of the files' bytes that must have come from the disk
_FILE_ORDER, _SHUFFLED, _MEMCPY = "file order", f"shuffled, window of {WINDOW_ROWS:,} rows", "memcpy"
_COLD_READ, _COLD_LOADER = "cold: files read one after the other", "cold: loader, file order"


def measure(place: BenchPlace, *, rows: int, repeats: int, workers: int, batch_rows: Sequence[int]) -> Findings:
    """Prepares a log and reads it.

    Raises:
        ChorusError: a program failed, or lost rows.
    """
    place.need(rows * _BYTES_PER_ROW)
    log = place.log(rows=rows, days=_DAYS)
    output = place.path("prepared")
    words = ["--input", *log.files, "--output", output, "--workers", str(workers), "--vocabulary", "hash"]
    place.run("tools/prepare_criteo.py", *words)
    place.remove("log")
    manifest = check_rows(output, log.num_rows)
    num_bytes = sum(file.num_bytes for part in manifest.parts for file in part.files.values())
    findings = Findings()
    for size in batch_rows:
        place.say(f"loading {log.num_rows:,} rows on one core in batches of {size:,}, {repeats} rounds")
        times: dict[str, list[float]] = in_one_process(warm_seconds, output, size, repeats, one_core=True)
        for name, least in ((_FILE_ORDER, _LEAST_FILE_ORDER), (_SHUFFLED, _LEAST_SHUFFLED)):
            rates = [log.num_rows / 1e6 / seconds for seconds in times[name]]
            note = f"{np.median(rates) * num_bytes / log.num_rows:,.0f} MB/s"
            findings.add(f"{name}, batches of {size:,}", rates, "M rows/s", target=least / 1e6, note=note)
    findings.add(_MEMCPY, [_COPIED_BYTES / 1e9 / seconds for seconds in times[_MEMCPY]], "GB/s", note="for scale")
    place.say(f"loading {num_bytes / 1e6:,.0f} MB from the disk, {repeats} rounds")
    cold: dict[str, list[float]] = in_one_process(cold_rates, output, batch_rows[-1], repeats, one_core=True)
    for name in (_COLD_READ, _COLD_LOADER):
        findings.add(name, cold[name], "MB/s")
    share = float(np.median(cold[_COLD_LOADER]) / np.median(cold[_COLD_READ]))
    findings.add("cold: loader's share of the disk's rate", share, "x", target=_LEAST_COLD)
    least_from_disk = min(cold["from_disk"])
    findings.facts = {
        "rows": log.num_rows,
        "prepared_bytes": num_bytes,
        "window_rows": WINDOW_ROWS,
        "least_share_from_disk": least_from_disk,
    }
    findings.remarks.append("to KeyedJaggedTensor batches, everything on one core, look-ahead thread included")
    if least_from_disk < _COLD_SHARE:
        findings.remarks.append(
            f"NOT COLD: only {least_from_disk:.0%} of the bytes came from the disk in one of the rounds;"
            " the cold figures say nothing"
        )
    return findings


def warm_seconds(root: str, batch_rows: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of an epoch in each order, and of copying memory, in each round behind one that is not counted."""
    torch.set_num_threads(1)
    source = np.ones(_COPIED_BYTES, np.uint8)
    target = np.zeros_like(source)
    ways: dict[str, Callable[[int], object]] = {
        _FILE_ORDER: lambda turn: load(root, batch_rows=batch_rows, epoch=turn, window=0),
        _SHUFFLED: lambda turn: load(root, batch_rows=batch_rows, epoch=turn, window=WINDOW_ROWS),
        _MEMCPY: lambda turn: np.copyto(target, source),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way(turn)
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def load(root: str, *, batch_rows: int, epoch: int = 0, window: int = 0) -> int:
    """Makes all batches of an epoch; gives their number."""
    source = PreparedSource(root=root, parts=[part.name for part in DataManifest.read(root).parts])
    order = RowOrder(num_rows=source.num_rows, seed=1, epoch=epoch, window=window)
    reader = BatchReader(source=source, batch_size=batch_rows, rank=0, world_size=1)
    count = rows = 0
    for batch in reader.batches(order):
        assert batch.sparse.values().dtype == torch.int32
        count += 1
        rows += len(batch.row_B)
    assert rows == count * batch_rows, f"{rows} rows in {count} batches"
    return count


def cold_rates(root: str, batch_rows: int, repeats: int) -> dict[str, list[float]]:
    """MB/s of plain reading and of the loader with the files out of the cache, in turns.

    `from_disk` holds for each measurement which share of the files' bytes came from the disk, as the kernel counts.
    """
    torch.set_num_threads(1)
    files = [str(Path(root, file.path)) for part in DataManifest.read(root).parts for file in part.files.values()]
    num_bytes = sum(os.path.getsize(file) for file in files)
    ways: dict[str, Callable[[], object]] = {
        _COLD_READ: lambda: _read(files),
        _COLD_LOADER: lambda: load(root, batch_rows=batch_rows),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*ways, "from_disk")}
    for _ in range(repeats):
        for name, way in ways.items():
            for file in files:
                drop_from_cache(file)
            before = bytes_from_disk()
            started = time.perf_counter()
            way()
            rates[name].append(num_bytes / 1e6 / (time.perf_counter() - started))
            rates["from_disk"].append((bytes_from_disk() - before) / num_bytes)
    return rates


def drop_from_cache(path: str) -> None:
    """Takes a file out of the system's cache; one that is mapped somewhere stays."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what is not written yet cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _read(paths: Sequence[str]) -> None:
    buffer = bytearray(_BLOCK_BYTES)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def bytes_from_disk() -> int:
    """Bytes that this process has had read from disks, as the kernel counts."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])
