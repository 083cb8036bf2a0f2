"""Scale measured: a long log made, prepared and reported on, and what that comes to for the Criteo 1TB click logs."""

from __future__ import annotations

import pickle
from pathlib import Path

from trainer import storage
from trainer.analysis.bench.figures import Findings
from trainer.analysis.bench.place import TEXT_BYTES_PER_ROW, BenchPlace, Ran
from trainer.analysis.bench.prepare import check_rows
from trainer.analysis.bench.projection import (
    CORES,
    CRITEO_1TB_ROWS,
    CRITEO_1TB_TEXT_BYTES,
    DICTIONARY,
    Measured,
    arithmetic,
    projected_hours,
)
from trainer.data.manifest import FIRST_VALUE_ID
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.preparation_settings import PreparationSettings, VocabularyChoice
from trainer.data.preparing.splits import Split
from trainer.data.synthetic.teacher_tables import terabyte_tables

LEAST_ROWS = 20_000_000
_SCALE = 0.05
_DAYS = 2
_MIN_COUNT = 2
_REST = "start-up, accounts, files made"
_GIB = 1 << 30
_BYTES_PER_ROW = TEXT_BYTES_PER_ROW + 450  # what is prepared and its scratch files


def measure(place: BenchPlace, *, rows: int, memory_gb: float, workers: int) -> Findings:
    """Makes, prepares, reports, projects.

    Raises:
        ChorusError: a program failed, or lost rows.
    """
    place.need(rows * _BYTES_PER_ROW)
    made = place.make_log(rows=rows, days=_DAYS, scale=_SCALE, watched="")
    log = place.log_there(days=_DAYS, rows=rows)
    output = place.path("prepared")
    settings = PreparationSettings(
        inputs=log.files,
        output=output,
        input_format=CriteoFormat(),
        split=Split.by_file(log.files),
        vocabulary=VocabularyChoice(rule=IdRule(min_count=_MIN_COUNT)),
        memory_gb=memory_gb,
        num_workers=workers,
    )
    place.say(f"preparing {log.num_rows:,} rows, {log.num_bytes / 1e9:.2f} GB, with a dictionary")
    settings_file, times_file = place.path("settings"), place.path("times.json")
    Path(settings_file).write_bytes(pickle.dumps(settings))
    prepared = place.run("trainer/analysis/bench/stage_times.py", settings_file, times_file, watched=output)
    stages = storage.read_json(times_file)
    manifest = check_rows(output, log.num_rows)
    words = ["--root", output, "--output", place.path("report"), "--workers", str(workers)]
    reported = place.run("tools/report_data.py", *words, "--memory-gb", f"{memory_gb:g}", watched="")

    findings = Findings()
    findings.add("rows", log.num_rows, "rows", target=LEAST_ROWS)
    for name, ran in (("made", made), ("prepared", prepared), ("reported on", reported)):
        _add(findings, name, ran, num_rows=log.num_rows, num_bytes=log.num_bytes)
    for stage, found in stages.items():
        took = found["seconds"]
        note = f"{log.num_rows / took:,.0f} rows/s, {log.num_bytes / 1e6 / took:,.1f} MB/s of text" if took else ""
        findings.add(f"  stage {stage}", took, "s", note="" if stage == DICTIONARY else note)
    findings.add("  rest", prepared.seconds - sum(found["seconds"] for found in stages.values()), "s", note=_REST)
    num_values = sum((feature.rows or 0) - FIRST_VALUE_ID for feature in manifest.id_features)
    seconds = {stage: found["seconds"] for stage, found in stages.items()}
    measured = Measured(seconds=seconds, num_rows=log.num_rows, num_values=num_values, num_cores=workers)
    _project(findings, measured, reported)
    findings.facts = {
        "rows": log.num_rows,
        "text_bytes": log.num_bytes,
        "values_kept": num_values,
        "memory_gb": memory_gb,
        "workers": workers,
        "stages": stages,
    }
    return findings


def _add(findings: Findings, name: str, ran: Ran, *, num_rows: int, num_bytes: int) -> None:
    assert ran.peak is not None
    note = f"{num_rows / ran.seconds:,.0f} rows/s, {num_bytes / 1e6 / ran.seconds:,.1f} MB/s of text"
    findings.add(name, ran.seconds, "s", note=note)
    findings.add(f"  peak anonymous memory, {name}", ran.peak.anonymous_bytes / _GIB, "GiB")


def _project(findings: Findings, measured: Measured, reported: Ran) -> None:
    values = terabyte_tables(scale=1.0).sizes
    for cores in CORES:
        hours = projected_hours(measured, num_rows=CRITEO_1TB_ROWS, values=values, num_cores=cores)
        rate = CRITEO_1TB_TEXT_BYTES / 1e6 / hours / 3600
        note = f"projected; {rate:,.0f} MB/s of text"
        findings.add(f"24 days prepared on {cores} cores", hours, "hours", note=note)
    for cores in CORES:
        share = measured.num_cores / cores
        hours = reported.seconds * CRITEO_1TB_ROWS / measured.num_rows * share / 3600
        findings.add(f"24 days reported on, {cores} cores", hours, "hours", note="projected")
    findings.remarks += arithmetic(measured, num_rows=CRITEO_1TB_ROWS, values=values)
    findings.remarks.append(
        "report: all of it by rows, shared evenly by all cores, with memory to count all tables at once"
    )
