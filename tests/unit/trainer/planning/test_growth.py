"""Growth: the month at which tables stop fitting, and what they need then."""

from __future__ import annotations

import math

import pytest

from configs.errors import ConfigError
from tests.support.planned_cases import MadeUpPlanner, machine, variant
from trainer.planning.growth import grown_variant, outgrown, read_rate
from trainer.planning.plans import Budget, Plans
from trainer.planning.study import Case, StudiedPoint


def grown(*words: str, mib: float, rate: float = 0.1, world_size: int = 4, max_plans: int = 100):
    planner = MadeUpPlanner()
    plans = Plans(planner, budget=Budget(max_plans=max_plans, seconds=None))
    case = Case(variant=variant(*words), hardware=machine(mib), purpose="train", world_size=world_size)
    one = StudiedPoint(case=case, point=plans.point(case), table_bytes=0)
    assert one.point.fits
    return outgrown(one, place=3, rate=rate, most_ranks=64, plans=plans), case, planner


def test_rates():
    assert read_rate("5%/month") == 0.05
    assert read_rate(" 2.5 % / month ") == 0.025
    assert (1 + read_rate("40%/year")) ** 12 == pytest.approx(1.4)


@pytest.mark.parametrize("text", ["5", "5%", "5%/day", "0%/month", "-5%/month", "five%/month", "1.2.3%/month", ""])
def test_other_rates_are_refused(text):
    with pytest.raises(ConfigError, match=r"^--growth: .*write one of them"):
        read_rate(text)


def test_the_factor_is_where_the_bytes_stop_fitting():
    found, case, planner = grown("--train.batch_size=4", mib=20)
    factor = found["rows_factor"]
    assert found["verified_by_plan"] and found["percent_per_month"] == pytest.approx(10)
    assert found["months"] == pytest.approx(math.log(factor) / math.log(1.1))
    assert (found["point"], found["hardware"], found["world_size"], found["purpose"]) == (3, "box", 4, "train")
    total = Plans(planner, budget=Budget(max_plans=9, seconds=None)).sum_of(
        case.variant, purpose="train", hardware=case.hardware
    )
    assert total.grown(factor).shortfall(case.hardware, world_size=4) is None
    assert total.grown(factor * 1.02).shortfall(case.hardware, world_size=4) is not None


def test_buffers_bring_it_forward():
    small, _, _ = grown("--train.batch_size=4", mib=20)
    large, case, planner = grown("--train.batch_size=8192", mib=20)
    assert large["rows_factor"] < small["rows_factor"] * 0.9
    assert large["verified_by_plan"]
    factor = large["rows_factor"]
    for step, fits in ((1.0, True), (1.2, False)):
        variant_then = grown_variant(case.variant, factor * step)
        at = Case(variant=variant_then, hardware=case.hardware, purpose="train", world_size=4)
        assert planner(at).fits is fits


def test_ranks_needed_later():
    found, case, planner = grown("--train.batch_size=4", mib=20)
    assert list(found["ranks_at"]) == ["6", "12", "24"]
    for months, ranks in found["ranks_at"].items():
        then = grown_variant(case.variant, 1.1 ** int(months))
        assert planner(Case(variant=then, hardware=case.hardware, purpose="train", world_size=ranks)).fits
        smaller = ranks // 2 if ranks <= 4 else ranks - 4
        if smaller:
            assert not planner(Case(variant=then, hardware=case.hardware, purpose="train", world_size=smaller)).fits
    assert found["ranks_at"]["6"] < found["ranks_at"]["24"]
    assert all(found["ranks_verified_at"].values())


def test_more_than_there_may_be():
    found, _, _ = grown("--train.batch_size=4", mib=20, rate=1.0)
    assert found["ranks_at"]["12"] is None and not found["ranks_verified_at"]["12"]


def test_without_plans_the_bytes_decide():
    found, _, _ = grown("--train.batch_size=4", mib=20, max_plans=1)
    assert found["rows_factor"] > 1 and not found["verified_by_plan"]
    assert found["ranks_at"]["6"] and not found["ranks_verified_at"]["6"]


def test_every_table_grows():
    rows = grown_variant(variant(), 1.25).data.features.table_rows
    assert rows == {"C1": 50_000, "C2": 25_000, "C3": 13}
