"""Growth: when tables outgrow the machines they are planned for, and what they need then."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

from configs.errors import ConfigError
from trainer.planning.byte_sum import ByteSum
from trainer.planning.plans import OutOfBudgetError, Plans
from trainer.planning.search import world_sizes
from trainer.planning.study import Case, StudiedPoint, Variant

MONTHS = (6, 12, 24)
_MOST_FACTOR = 1e6  # rows beyond that are another problem
_PRECISION = 1.005  # of the factor
_JUST_BELOW = 0.99  # of what the bytes allow: buffers and activations want their place, too
_PLANS_AT_MOST = 6  # of one point's bisection
_LARGER_SIZES = 4  # planned beyond what the bytes allow, before it is left open


def read_rate(text: str) -> float:
    """`5%/month`, `40%/year` -> more rows a month, as a share.

    Raises:
        ConfigError: it is of another form, or no growth.
    """
    found = re.fullmatch(r"\s*([0-9.]+)\s*%\s*/?\s*(month|year)\s*", text)
    try:
        rate = float(found[1]) / 100 if found else 0.0
    except ValueError:
        rate = 0.0
    if not found or rate <= 0:
        raise ConfigError(f"--growth: {text!r} is not of the form 5%/month or 40%/year, above zero; write one of them")
    return rate if found[2] == "month" else (1 + rate) ** (1 / 12) - 1


def outgrown(one: StudiedPoint, *, place: int, rate: float, most_ranks: int, plans: Plans) -> dict[str, Any]:
    """How long a point that fits goes on to fit, and how many ranks later rows need.

    Every table grows at the rate, the smallest too; the byte sum is searched for where it stops fitting, and one plan
    verifies it. Where buffers make it stop earlier, plans are bisected.

    Args:
        one: The point.
        place: Its number in the study.
        rate: More rows a month, as a share, compound.
        most_ranks: Where looking for ranks ends.
        plans: Plans what has grown.
    """
    case = one.case
    total = plans.sum_of(case.variant, purpose=case.purpose, hardware=case.hardware)
    limit = _limit(lambda factor: _sum_fits(total.grown(factor), case))
    verified, factor = _verified(limit, case, plans=plans)
    needs = {
        months: _need(months, case, total=total, rate=rate, most_ranks=most_ranks, plans=plans) for months in MONTHS
    }
    return {
        "point": place,
        "purpose": case.purpose,
        "hardware": case.hardware.name,
        "world_size": case.world_size,
        "percent_per_month": 100 * rate,
        "rows_factor": factor,
        "months": None if factor is None else math.log(factor) / math.log1p(rate),
        "verified_by_plan": verified,
        "ranks_at": {str(months): ranks for months, (ranks, _) in needs.items()},
        "ranks_verified_at": {str(months): planned for months, (_, planned) in needs.items()},
    }


def grown_variant(variant: Variant, factor: float) -> Variant:
    """The same ensemble with so many times the rows in every table."""
    features = variant.data.features
    rows = {name: math.ceil(count * factor) for name, count in features.table_rows.items()}
    data = dataclasses.replace(variant.data, features=dataclasses.replace(features, table_rows=rows))
    return dataclasses.replace(variant, data=data)


def _sum_fits(total: ByteSum, case: Case) -> bool:
    return total.shortfall(case.hardware, world_size=case.world_size) is None


def _limit(fits: Callable[[float], bool]) -> float | None:
    """The largest factor that fits, to half a percent; None: there is none below a million."""
    low, high = 1.0, 2.0
    while fits(high):
        low, high = high, 2 * high
        if high > _MOST_FACTOR:
            return None
    return _bisected(low, high, fits)


def _bisected(low: float, high: float, fits: Callable[[float], bool], *, most_calls: int = 64) -> float:
    for _ in range(most_calls):
        if high / low < _PRECISION:
            break
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _verified(limit: float | None, case: Case, *, plans: Plans) -> tuple[bool, float | None]:
    """Whether plans agree, and the factor that they leave."""
    if limit is None:
        return False, None

    def planned(factor: float) -> bool:
        grown = dataclasses.replace(case, variant=grown_variant(case.variant, factor))
        return plans.try_point(grown).fits

    try:
        for factor in (limit, _JUST_BELOW * limit):
            if factor > 1 and planned(factor):
                return True, factor
        return True, _bisected(1.0, limit, planned, most_calls=_PLANS_AT_MOST)
    except OutOfBudgetError:
        return False, limit


def _need(
    months: int, case: Case, *, total: ByteSum, rate: float, most_ranks: int, plans: Plans
) -> tuple[int | None, bool]:
    """The smallest world that takes the rows of so many months ahead, and whether a plan says so."""
    factor = (1 + rate) ** months
    grown = total.grown(factor)
    variant = grown_variant(case.variant, factor)
    possible = [
        size
        for size in world_sizes(case.hardware, most=most_ranks)
        if grown.shortfall(case.hardware, world_size=size) is None
    ]
    for size in possible[:_LARGER_SIZES]:
        try:
            if plans.try_point(dataclasses.replace(case, variant=variant, world_size=size)).fits:
                return size, True
        except OutOfBudgetError:
            return possible[0], False
    return None, False
