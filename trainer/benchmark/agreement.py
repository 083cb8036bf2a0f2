"""Agreement: whether a benchmark that was run again, elsewhere, gives the figures of a page.

Each member's and each merge's AUC and log loss have one value a group on either side. The difference of the two means
has Welch's interval (Welch, Biometrika 1947): groups are independent trainings, of another spread on either side.
Figures share trainings, so that the differences that exclude zero come in clusters, not singly.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_ind

from configs.errors import DataError
from trainer.analysis.intervals import Interval
from trainer.benchmark.page.markdown import DIGITS, TITLES, excludes_zero, is_known, plain, table, with_half_width

COMPARED = ("auc", "log_loss_nats")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure here and there."""

    name: str
    """Pool and member, or strategy and size."""

    metric: str
    here: float
    there: float
    interval: Interval
    """Of here minus there."""


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Difference]:
    """All figures that two records of a benchmark (docs/benchmarks/NAME.json) have in common.

    Raises:
        DataError: they are not of one benchmark, or have no figure in common.
    """
    if here["name"] != there["name"]:
        raise DataError(f"{here['name']} and {there['name']} are two benchmarks; compare two records of one")
    ours, theirs = dict(_values(here)), dict(_values(there))
    common = [key for key in ours if key in theirs]
    if not common:
        raise DataError(f"the two records of {here['name']} have no figure in common; they are of other settings")
    return [
        Difference(
            name=key[0],
            metric=key[1],
            here=float(np.mean(ours[key])),
            there=float(np.mean(theirs[key])),
            interval=welch(ours[key], theirs[key]),
        )
        for key in common
    ]


def welch(ours: Sequence[float], theirs: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """The difference of two means with Welch's interval; where a side has one value, its ends are NaN."""
    value = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) > 1 and np.ptp(ours) == np.ptp(theirs) == 0.0:
        return Interval(value=value, low=value, high=value)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of a side with one value
        low, high = ttest_ind(ours, theirs, equal_var=False).confidence_interval(confidence)
    return Interval(value=value, low=float(low), high=float(high))


def agreement_text(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """What the differences come to, and those that exclude zero, the widest apart first."""
    found = differences(here, there)
    known = [one for one in found if is_known(one.interval)]
    apart = sorted(
        (one for one in known if excludes_zero(one.interval)), key=lambda one: (one.metric, -abs(one.interval.value))
    )
    lines = [
        f"{here['name']}: {len(found)} figures, {here['groups']} groups on {here['machine']};"
        f" {there['groups']} on {there['machine']}",
        f"{len(known) - len(apart)} of {len(known)} differences hold zero in their 95 % interval;"
        f" about {round(0.05 * len(known))} would not by chance",
    ]
    for metric in COMPARED:
        widest = max((one for one in found if one.metric == metric), key=lambda one: abs(one.interval.value))
        shown = with_half_width(widest.interval, DIGITS[metric], signed=True)
        lines.append(f"largest difference of {TITLES[metric]}: {shown} ({widest.name})")
    text = "\n".join(lines) + "\n"
    if not apart:
        return text
    return f"{text}\n{table(('figure', '', 'here', 'there', 'here - there'), map(_line, apart), words=2)}"


def _line(one: Difference) -> tuple[str, ...]:
    digits = DIGITS[one.metric]
    return (
        one.name,
        TITLES[one.metric],
        plain(one.here, digits),
        plain(one.there, digits),
        with_half_width(one.interval, digits, signed=True),
    )


def _values(record: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], list[float]]]:
    named = [(f"{one['pool']}: {one['member']}", one) for one in record["singles"]]
    titles = {name: strategy["title"] for name, strategy in record["strategies"].items()}
    named += [(f"{titles[one['strategy']]}, K = {one['size']}", one) for one in record["points"]]
    for name, one in named:
        for metric in COMPARED:
            yield (name, metric), [group[metric] for group in one["groups"]]
