"""Preparation measured: whole commands in turns, against torchrec's first step on the same text in the same run."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

from trainer.analysis.bench.figures import Findings
from trainer.analysis.bench.one_process import in_one_process
from trainer.analysis.bench.place import TEXT_BYTES_PER_ROW, BenchPlace, Log
from trainer.analysis.bench.torchrec_step import step_seconds
from trainer.data.manifest import DataManifest

_SCALE = 0.1
_REFERENCE_ROWS = 400_000
_BYTES_PER_ROW = 2 * TEXT_BYTES_PER_ROW + 500  # the text, plain and packed; what is prepared and its scratch files
_TORCHREC = "torchrec"
# Name, arguments, whether the text is packed, least ratio to torchrec.
_HASH, _DICTIONARY, _REPARSE = "hash", "dictionary", "dictionary, text parsed twice"
_HASH_GZ, _DICTIONARY_GZ = "hash, .gz", "dictionary, .gz"
_WORDS = {
    _HASH: ("--vocabulary", "hash"),
    _DICTIONARY: ("--vocabulary", "dictionary"),
    _REPARSE: ("--vocabulary", "dictionary", "--reparse"),
    _HASH_GZ: ("--vocabulary", "hash"),
    _DICTIONARY_GZ: ("--vocabulary", "dictionary"),
}
_LEAST = {_HASH: 10.0, _DICTIONARY: 6.0, _REPARSE: 4.0}
_PLAIN_OF = {_HASH_GZ: _HASH, _DICTIONARY_GZ: _DICTIONARY}
_LEAST_GZ = 0.7


def measure(place: BenchPlace, *, rows: int, repeats: int, workers: int) -> Findings:
    """Makes a log with as many files as workers and prepares it in every way, in turns.

    Raises:
        ChorusError: a program failed, or lost rows.
    """
    place.need(rows * _BYTES_PER_ROW)
    log = place.log(rows=rows, days=workers, scale=_SCALE)
    packed = place.packed(log)
    head = place.head(log, rows=min(_REFERENCE_ROWS, rows // workers))
    ways: dict[str, Callable[[], float]] = {
        name: lambda name=name: _prepare(place, log, name=name, packed=packed, workers=workers)  # type: ignore[misc]
        for name in _WORDS
    }
    ways[_TORCHREC] = lambda: _torchrec(place, head)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            place.say(f"round {turn + 1} of {repeats}: {name}")
            seconds[name].append(way())
    sizes = dict.fromkeys(ways, log.num_bytes) | {_TORCHREC: os.path.getsize(head)}
    rates = {name: [sizes[name] / 1e6 / one for one in of_name] for name, of_name in seconds.items()}
    findings = Findings()
    _report(findings, rates, rows_per_byte=log.num_rows / log.num_bytes)
    findings.facts = {
        "rows": log.num_rows,
        "text_bytes": log.num_bytes,
        "packed_bytes": sum(os.path.getsize(file) for file in packed),
        "reference_text_bytes": sizes[_TORCHREC],
        "workers": workers,
    }
    findings.remarks += [
        f"MB of unpacked text a second; whole commands with {workers} workers, from their start to their end",
        f"torchrec: tsv_to_npys alone, imports not counted, one process, the first {sizes[_TORCHREC] / 1e6:,.0f} MB",
    ]
    return findings


def _report(findings: Findings, rates: dict[str, list[float]], *, rows_per_byte: float) -> None:
    median = {name: statistics.median(of_name) for name, of_name in rates.items()}
    for name, of_name in rates.items():
        rows = statistics.median(of_name) * 1e6 * rows_per_byte
        findings.add(name, of_name, "MB/s", note=f"{rows:,.0f} rows/s")
    for name, least in _LEAST.items():
        findings.add(f"{name}: times torchrec", median[name] / median[_TORCHREC], "x", target=least)
    for name, plain in _PLAIN_OF.items():
        findings.add(f"{name}: share of plain", median[name] / median[plain], "x", target=_LEAST_GZ)


def _prepare(place: BenchPlace, log: Log, *, name: str, packed: tuple[str, ...], workers: int) -> float:
    output = place.path("prepared")
    files = packed if name in _PLAIN_OF else log.files
    words = ["--input", *files, "--output", output, "--workers", str(workers), *_WORDS[name]]
    seconds = place.run("tools/prepare_criteo.py", *words).seconds
    check_rows(output, log.num_rows)
    place.remove("prepared")
    return seconds


def _torchrec(place: BenchPlace, head: str) -> float:
    seconds: float = in_one_process(step_seconds, head, place.folder)
    return seconds


def check_rows(prepared: str, num_rows: int) -> DataManifest:
    """The manifest of a preparation that has kept every row.

    Raises:
        AssertionError: it has not.
    """
    manifest = DataManifest.read(prepared)
    found = sum(part.num_rows for part in manifest.parts)
    assert found == num_rows, f"{prepared} holds {found} of {num_rows} rows"
    return manifest
