"""Memory measured: a log of very many different values, prepared within a limit that the kernel enforces as well."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.parquet as pq

from trainer.analysis.bench.figures import Findings
from trainer.analysis.bench.memory_watch import Peak
from trainer.analysis.bench.place import TEXT_BYTES_PER_ROW, BenchPlace
from trainer.analysis.bench.prepare import check_rows
from trainer.data.manifest import DataManifest
from trainer.data.preparing.prepared_folder import DICTIONARY_FOLDER

LEAST_VALUES = 60_000_000
_SCALE, _SKEW = 1.0, 0.3  # nearly flat: most rows of a large feature show a value of their own
_GIB = 1 << 30
_BYTES_PER_ROW = TEXT_BYTES_PER_ROW + 900  # what is prepared, its scratch files and dictionaries


def measure(place: BenchPlace, *, rows: int, memory_gb: float, workers: int, limit: Sequence[str] | None) -> Findings:
    """Makes the log, prepares it with --min-count 1 within the memory, and counts the values.

    Args:
        place: Where.
        rows: Of the log.
        memory_gb: The limit, told to the preparation.
        workers: Its processes.
        limit: A command that runs another one within the limit; None: prlimit; empty: none.

    Raises:
        ChorusError: a program failed, as it does where it goes over the limit.
    """
    place.need(rows * _BYTES_PER_ROW)
    log = place.log(rows=rows, scale=_SCALE, skew=_SKEW)
    output = place.path("prepared")
    limit_bytes = int(memory_gb * _GIB)
    before = ["prlimit", f"--data={limit_bytes}"] if limit is None else list(limit)
    words = ["--input", *log.files, "--output", output, "--workers", str(workers), "--memory-gb", f"{memory_gb:g}"]
    ran = place.run("tools/prepare_criteo.py", *words, "--min-count", "1", before=before, watched=output)
    manifest = check_rows(output, log.num_rows)
    assert ran.peak is not None
    findings = Findings()
    findings.add("different values over all features", num_values(manifest, output), "", target=LEAST_VALUES)
    findings.add("peak anonymous memory of all processes", ran.peak.anonymous_bytes / _GIB, "GiB", **_most(memory_gb))
    findings.add("largest of one process", ran.peak.of_one_process_bytes / _GIB, "GiB")
    findings.add("time", ran.seconds, "s")
    findings.add("rate", log.num_rows / ran.seconds, "rows/s", note=f"{log.num_bytes / 1e6 / ran.seconds:.1f} MB/s")
    prepared_bytes = sum(file.num_bytes for part in manifest.parts for file in part.files.values())
    findings.add("most on disk while preparing", ran.peak.folder_bytes / 1e9, "GB")
    findings.add("  of it arrays that stay", prepared_bytes / 1e9, "GB", note="the rest: scratch files, dictionaries")
    findings.facts = {
        "rows": log.num_rows,
        "text_bytes": log.num_bytes,
        "memory_gb": memory_gb,
        "workers": workers,
        "processes": ran.peak.num_processes,
        "looks": ran.peak.num_looks,
        "longest_gap_seconds": ran.peak.longest_gap_seconds,
        "limit": before,
    }
    findings.remarks += [_how(before, limit_bytes, of_prlimit=limit is None), _looks(ran.peak)]
    return findings


def num_values(manifest: DataManifest, root: str) -> int:
    """Values in the dictionaries of a folder prepared with --min-count 1: all there are.

    Raises:
        AssertionError: the dictionaries and the tables do not agree.
    """
    total = 0
    for feature in manifest.id_features:
        values = pq.ParquetFile(f"{root}/{DICTIONARY_FOLDER}/{feature.name}.parquet").metadata.num_rows
        assert feature.rows == values + 2, f"{feature.name}: {values} values, but {feature.rows} table rows"
        total += values
    return total


def _most(memory_gb: float) -> dict[str, object]:
    return {"target": memory_gb, "bound": "most"}


def _how(before: Sequence[str], limit_bytes: int, *, of_prlimit: bool) -> str:
    if of_prlimit:
        return (
            f"hard limit: prlimit --data={limit_bytes}, for each process alone (what it may map, used or not);"
            " their sum is as sampled"
        )
    return f"hard limit: {' '.join(before)}" if before else "hard limit: none"


def _looks(peak: Peak) -> str:
    return (
        f"memory: RssAnon + RssShmem of up to {peak.num_processes} processes, {peak.num_looks:,} looks,"
        f" the longest time between two {peak.longest_gap_seconds:.2f} s"
    )
