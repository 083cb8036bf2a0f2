"""Assembly of a scoring job: plans that fit one by one must fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import EXIT_NOTHING_FITS, PlanError
from sharding.hardware import Hardware
from sharding.ledger import PlannedJob
from sharding.report import PlanReport
from tests.support.runs import small_run
from tests.unit.trainer.ranks import OneOfMany
from trainer import scoring_assembly
from trainer.scored_run import ScoredRun

RUNS = [ScoredRun(label=label, folder=f"runs/{label}", config=small_run()) for label in ("a", "b")]


def report(*held: int) -> PlanReport:
    return PlanReport(
        job=PlannedJob(device="cpu", world_size=2, ranks_per_host=2, rows_per_rank=1),
        tables_per_sharding_type={},
        bytes_per_rank={"table_weights": held},
        sent_bytes_per_rank={},
        received_bytes_per_rank={},
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plans_that_do_not_fit_together_are_refused(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    there = Hardware(device="cpu", world_size=2, local_world_size=2, hbm_bytes=0, ddr_bytes=1_000)
    if device == "cuda":
        there = dataclasses.replace(there, device="cuda", hbm_bytes=1_000, ddr_bytes=10**9)
    monkeypatch.setattr(scoring_assembly, "live_hardware", lambda **_: there)
    runtime = OneOfMany(world_size=2)
    runtime.local_world_size = 2  # type: ignore[attr-defined]

    def check(*reports: PlanReport) -> None:
        scoring_assembly._check_memory(reports, runs=RUNS, runtime=runtime)  # type: ignore[arg-type]

    check(report(400, 500), report(500, 500))
    check(report(2_000, 2_000))  # the planner has had its say
    check()
    with pytest.raises(PlanError) as refused:
        check(report(400, 500), report(500, 501))
    assert str(refused.value) == (
        "--checkpoint: a, b together take 1,001 bytes of rank 1's 1,000; score them in jobs of their own, or add ranks"
    )
    assert refused.value.exit_code == EXIT_NOTHING_FITS


def test_tables_that_are_quantised_for_long_do_not_look_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []
    runtime: Any = OneOfMany(rank=1, world_size=2)
    runtime.beat = beats.append
    runtime.local_world_size, runtime.ranks, runtime.together = 2, None, lambda do: do()

    def fill(*_: object, say: Callable[[str], None], **__: object) -> str:
        for number in range(3):
            say(f"{number} MiB read")
        return "the model"

    monkeypatch.setattr(scoring_assembly, "quantised_model", fill)
    monkeypatch.setattr(scoring_assembly, "verify", lambda manifest, *, ranks: None)
    placed: Any = SimpleNamespace(run=RUNS[0], manifest=None, built=None, plan=None)
    plan: Any = SimpleNamespace(config=small_run("--score.tables=int8"))
    model: Any = scoring_assembly._ensemble_model(placed, plan=plan, ranks=None, runtime=runtime)  # type: ignore[arg-type]
    assert (model, len(set(beats)), len(beats)) == ("the model", 1, 4)
    assert runtime.said == [f"{number} MiB read" for number in range(3)]
