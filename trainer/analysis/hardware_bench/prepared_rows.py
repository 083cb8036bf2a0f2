"""Prepared rows: how fast the ranks of a host read a file from its disk, and rows become batches on one of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np

from configs.schema import Data
from trainer import storage
from trainer.analysis.bench.loader import bytes_from_disk, drop_from_cache
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.points import Point
from trainer.analysis.hardware_bench.rank_processes import RankHere
from trainer.data.criteo import DENSE_NAMES, SPARSE_NAMES
from trainer.data.preparing.adoption import adopt
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.data.reading.source import PreparedSource

MANY, FEW = "many", "few"  # parts of the folder that is made
_ROWS, _QUICK_ROWS, _FEW_ROWS = 524_288, 16_384, 4_096
_TABLE_ROWS = 100
_BATCH_ROWS = 4_096  # of a rank
_BLOCK_BYTES = 8 << 20
_EPOCHS = 5
READ, BATCHES = "read", "batches"


def make_rows(root: str, effort: Effort) -> None:
    """A prepared folder in the Criteo layout: 13 numbers, 26 ids of small tables, a label."""
    storage.make_folder(root)
    random = np.random.default_rng(1)
    for part, rows in ((MANY, _QUICK_ROWS if effort.quick else _ROWS), (FEW, _FEW_ROWS)):
        arrays = {
            "dense": random.random((rows, len(DENSE_NAMES)), np.float32),
            "sparse": random.integers(_TABLE_ROWS, size=(rows, len(SPARSE_NAMES)), dtype=np.int32),
            "labels": random.integers(2, size=(rows, 1), dtype=np.int32),
        }
        for role, array in arrays.items():
            with storage.open_file(storage.join(root, f"{part}_{role}.npy"), "wb") as file:
                np.save(file, array)
    adopt(root, table_rows=[_TABLE_ROWS] * len(SPARSE_NAMES))


def make_file(path: str, effort: Effort) -> None:
    """A file to read, on the disk and out of the system's cache."""
    block = np.random.default_rng(2).bytes(_BLOCK_BYTES)
    with storage.open_file(path, "wb") as file:
        for _ in range(max(1, effort.disk_mib * 2**20 // _BLOCK_BYTES)):
            file.write(block)
    drop_from_cache(path)


def read_file(here: RankHere, path: str) -> list[Point]:
    """This rank's share of the file, block by block; `from_disk` is the share of its bytes that came from the disk."""
    num_bytes = os.path.getsize(path)
    begin, end = (num_bytes * rank // here.num_ranks for rank in (here.rank, here.rank + 1))
    buffer = bytearray(_BLOCK_BYTES)
    before = bytes_from_disk()
    here.meet()
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        file.seek(begin)
        while (left := end - file.tell()) > 0:
            file.readinto(memoryview(buffer)[:left])
    seconds = time.perf_counter() - began
    from_disk = (bytes_from_disk() - before) / (end - begin)
    return [Point(what=READ, size={"bytes": float(end - begin), "from_disk": from_disk}, seconds=(seconds,))]


def make_batches(here: RankHere, root: str) -> list[Point]:
    """This rank's batches of shuffled epochs, as a training job of all ranks reads them, from a warm cache."""
    source = PreparedSource(root=root, parts=[MANY])
    reader = BatchReader(
        source=source, batch_size=_BATCH_ROWS * here.num_ranks, rank=here.rank, world_size=here.num_ranks
    )
    times, num_rows = [], 0
    for epoch in range(_EPOCHS + 1):
        order = RowOrder(num_rows=source.num_rows, seed=1, epoch=epoch, window=Data().shuffle_window)
        here.meet()
        began = time.perf_counter()
        num_rows = sum(_rows(reader, order))
        times.append(time.perf_counter() - began)
    return [Point(what=BATCHES, size={"rows": float(num_rows)}, seconds=(statistics.median(times[1:]),))]


def _rows(reader: BatchReader, order: RowOrder) -> Iterator[int]:
    for batch in reader.batches(order):
        yield len(batch.row_B)


def disk_gb_per_s(points: Sequence[Point]) -> float:
    """Of all ranks together: their bytes over the time of the slowest."""
    (point,) = [point for point in points if point.what == READ]
    return point.size["bytes"] * len(point.seconds) / max(point.seconds) / 1e9


def batch_rows_per_s(points: Sequence[Point]) -> float:
    """Of one rank."""
    (point,) = [point for point in points if point.what == BATCHES]
    return point.size["rows"] / point.mean_seconds
