"""Predicted points and study points with figures that a test chooses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tests.support.runs import small_run
from tests.unit.trainer.analysis.plan_comparison.made_usage import made_usage
from trainer.analysis.plan_comparison.prediction import PastRun
from trainer.analysis.plan_comparison.run_usage import usage_of
from trainer.analysis.plan_comparison.study_points import StudyPoint
from trainer.data.reading.source import SourceFeatures
from trainer.planning.capacity_point import PHASES, CapacityPoint, StepSeconds
from trainer.planning.data_facts import DataFacts, IdTraffic

FACTS = DataFacts(
    features=SourceFeatures(dense_names=("I1",), table_rows={"C1": 10}, dictionary="d"),
    traffic={"C1": IdTraffic()},
    train_rows=1_000,
    score_rows=1_000,
    stored_bytes=12,
    origin="made up",
)


def made_point(
    *,
    held: Mapping[str, tuple[int, ...]] | None = None,
    parts: Mapping[str, float] | None = None,
    total: float = 0.2,
    row_wise_share: float | None = None,
) -> CapacityPoint:
    """A point of one rank; with a share of tables split by rows, of two."""
    return CapacityPoint(
        hardware="small",
        device="cpu",
        purpose="train",
        world_size=1 if row_wise_share is None else 2,
        num_hosts=1,
        batch_size=100,
        rows_per_rank=100,
        num_members=1,
        refusal=None,
        held=held or {"table_weights": (4_000,), "table_optimizer": (400,)},
        host_held=(),
        capacity_bytes=2**30,
        imbalance=1.0,
        tables_per_sharding_type={"row_wise": 1},
        sent_bytes={"intra_host": 0, "inter_host": 0},
        step=StepSeconds(parts=parts or dict.fromkeys(PHASES, 0.02), total=total),
        dense_shares={},
        rows_per_second=100 / total,
        hours=1.0,
        cost=None,
        plan={"report": {"row_wise_share": row_wise_share}},
        seconds_to_plan=0.1,
    )


def made_study_point(
    point: CapacityPoint,
    *,
    key: str = "run",
    use: str = "held_out",
    grown: int = 50 << 20,
    measured: Mapping[str, float] | None = None,
    step_seconds: float = 0.2,
    growth: int = 50 << 20,
) -> StudyPoint:
    """A run of a study that took what is said."""
    usage = usage_of(made_usage(), source=key)
    usage = dataclasses.replace(
        usage, phases=measured or usage.phases, step_seconds=step_seconds, growth_bytes=(growth,)
    )
    past = PastRun(config=small_run(), data=FACTS)
    return StudyPoint(key=key, use=use, words=key, past=past, usage=usage, point=point, grown=(grown,))
