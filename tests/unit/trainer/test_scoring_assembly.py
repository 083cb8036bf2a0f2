"""Assembly of a scoring job: plans that fit one by one must fit together."""

from __future__ import annotations

import dataclasses

import pytest

from configs.errors import EXIT_NOTHING_FITS, PlanError
from sharding.hardware import Hardware
from sharding.report import PlanReport
from tests.support.runs import small_run
from tests.unit.trainer.ranks import OneOfMany
from trainer import scoring_assembly
from trainer.scored_run import ScoredRun

RUNS = [ScoredRun(label=label, folder=f"runs/{label}", config=small_run()) for label in ("a", "b")]


def report(*held: int) -> PlanReport:
    return PlanReport(
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
