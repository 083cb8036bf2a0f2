"""Overheads come from the clock on the wall, within a round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from tests.unit.trainer.analysis.reliability.stored_checkpoint import trained_state, write_checkpoint
from trainer.analysis.reliability.checkpoint_cost import (
    BACKGROUND,
    FOREGROUND,
    NONE,
    CostRun,
    Costs,
    CostSettings,
    as_markdown,
    cost_run,
    findings_of,
)

SETTINGS = CostSettings(folder="x", words=(), ranks=2, every_seconds=60.0, seconds=190.0, rounds=2)


def _run(rate: float, held: tuple[float, ...] = ()) -> CostRun:
    return CostRun(
        rows_per_second=rate,
        seconds=100.0,
        held_up_seconds=held,
        write_seconds=tuple(3.0 for _ in held),
        num_bytes=2**30,
    )


def test_a_run_is_measured_from_its_first_line_to_its_last(tmp_path: Path):
    lines = [
        {"step": 10, "seconds": 5.0, "train/rows_per_second": 1.0},
        {"step": 20, "seconds": 8.0, "eval/a/auc": 0.5},
        {"step": 30, "seconds": 15.0, "train/rows_per_second": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_checkpoint(tmp_path / "checkpoints" / "step_0000000030", trained_state())
    # Of three checkpoints the first is before the clock starts and the last behind its end.
    run = cost_run(tmp_path, batch_size=8, saves=[(5, 1.0), (20, 0.5), (30, 0.7)], writes=[1.0, 2.0, 3.0])
    assert run.rows_per_second == 8 * 20 / 10.0
    assert (run.seconds, run.held_up_seconds, run.write_seconds) == (10.0, (0.5,), (2.0,))
    assert run.num_bytes > 100


def test_overheads_are_taken_within_a_round():
    runs = {
        NONE: [_run(1_000.0), _run(2_000.0)],
        BACKGROUND: [_run(980.0, (0.5,)), _run(1_940.0, (0.7,))],
        FOREGROUND: [_run(900.0, (4.0,)), _run(1_800.0, (6.0,))],
    }
    findings = findings_of(Costs(steps=9, batch_size=8, runs=runs), SETTINGS)
    figures = {figure.name: figure for figure in findings.figures}
    assert figures["in the background: overhead"].value == pytest.approx(2.5)
    assert figures["in the background: overhead"].verdict == "met"
    assert figures["in the foreground: overhead"].value == pytest.approx(10.0)
    assert figures["in the foreground: training held up"].value == 5.0
    assert figures["in the background: one checkpoint every"].value == 100.0
    assert figures["state, one checkpoint"].value == 1024.0
    text = as_markdown(findings, command="python x")
    assert "| in the background: overhead | 2.5 % (goal: at most 5; met) | 2, 3 |" in text


def test_too_much_is_said():
    runs = {NONE: [_run(1_000.0)], BACKGROUND: [_run(900.0, (0.5,))]}
    findings = findings_of(Costs(steps=9, batch_size=8, runs=runs), SETTINGS)
    assert "10 % (goal: at most 5; missed)" in as_markdown(findings, command="python x")


def test_runs_without_a_checkpoint_say_nothing():
    runs = {NONE: [_run(1_000.0)], BACKGROUND: [_run(1_000.0)]}
    with pytest.raises(ConfigError, match="no checkpoint came due"):
        findings_of(Costs(steps=9, batch_size=8, runs=runs), SETTINGS)
