"""How many values each categorical feature of the planted teacher has, how skewed they are, and how they are renewed.

A large feature has a number of slots, in order of frequency. Each slot holds one value at a time; where a share of the
values is renewed each day, the slots take turns in getting a new one, so a day shows values that no day before it has,
and the skew stays what it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError
from trainer.data.manifest import FIRST_VALUE_ID

MOST_VALUES = 2**31 - 1 - FIRST_VALUE_ID  # ids are int32
LARGE_TABLE = 2_000  # values; above it a feature is large: more skewed, and each value lighter in the logit
_KEPT_BY_SCALE = 1_000  # a feature of so few values is never scaled, and none is scaled below it
# A slot's place in the order of renewal: multiples of the golden ratio spread evenly over [0, 1).
_GOLDEN_32 = np.uint32(0x9E3779B9)

# Distinct values of C1..C26 in the Criteo Kaggle data.
_KAGGLE_SIZES = (
    (1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194)
    + (27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572)
)  # fmt: skip
_KAGGLE_LARGEST = 2  # C3
_KAGGLE_PAIRS = ((5, 16), (13, 21), (16, 22), (5, 21), (8, 13), (19, 22))
# Distinct values of C1..C26 in the 24 days of the Criteo 1TB click logs, as the TorchRec DLRM example lists them.
_TERABYTE_SIZES = (
    (227_605_432, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 130_229_467, 3_067_956, 405_282, 10)
    + (2_209, 11_938, 155, 4, 976, 14, 292_775_614, 40_790_948, 187_188_510, 590_152, 12_973, 108, 36)
)  # fmt: skip
_TERABYTE_PAIRS = ((5, 15), (8, 12), (16, 17), (18, 24), (8, 25), (15, 18))


@dataclass(frozen=True, kw_only=True)
class TeacherTables:
    """The values of C1..C26.

    Attributes:
        sizes: how many values each shows on one day at most.
        pairs: features (0 = C1) that act on the click together.
        skew: exponent of the power law of every large feature; None: the seed draws one for each.
        renewing: features whose values are renewed.
        renewed: the share of their values that is replaced by new ones each day.
        num_days: days until no more is renewed.
        rows_per_day: rows that make a day; only where something is renewed.
    """

    sizes: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    skew: float | None = None
    renewing: tuple[int, ...] = ()
    renewed: float = 0.0
    num_days: int = 1
    rows_per_day: int = 0

    def __post_init__(self) -> None:
        if self.skew is not None and (not 0.0 < self.skew <= 3.0 or self.skew == 1.0):
            raise ConfigError(f"skew: {self.skew} must be above 0, at most 3, and not 1 itself (take 1.001)")
        largest = max(self.total(feature) for feature in range(len(self.sizes)))
        if largest > MOST_VALUES:
            raise ConfigError(
                f"a feature would have {largest:,} values over all days, ids end at {MOST_VALUES:,};"
                " take a smaller scale, fewer days or a smaller share of new values"
            )

    @property
    def rounds(self) -> int:
        """How often a slot is renewed at most, over all days."""
        return math.ceil(self.renewed * (self.num_days - 1))

    def total(self, feature: int) -> int:
        """Values a feature can show over all days: they are numbered below it."""
        size = self.sizes[feature]
        return size * (1 + self.rounds) if feature in self.renewing else size

    def values(self, feature: int, slots: NDArray[np.int32], row_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The values int32 [N] that the slots (-1: missing) of a feature hold on the days of these rows."""
        size = self.sizes[feature]
        if feature not in self.renewing:
            return slots
        day = np.minimum(row_ids // self.rows_per_day, self.num_days - 1)
        turn = (slots.astype(np.uint32) * _GOLDEN_32).astype(np.float64) * 2.0**-32
        times = (turn + self.renewed * day).astype(np.int32)
        return np.where(slots < 0, slots, slots + times * np.int32(size)).astype(np.int32)


def kaggle_tables(max_table_rows: int) -> TeacherTables:
    """The Kaggle data's sizes, cut at `max_table_rows`, which C3 has in any case."""
    sizes = [min(size, max_table_rows) for size in _KAGGLE_SIZES]
    sizes[_KAGGLE_LARGEST] = max_table_rows
    return TeacherTables(sizes=tuple(sizes), pairs=_KAGGLE_PAIRS)


def terabyte_tables(
    *, scale: float, num_days: int = 1, rows_per_day: int = 0, renewed: float = 0.0, skew: float | None = None
) -> TeacherTables:
    """The sizes of the Criteo 1TB click logs times `scale`, renewals included: so many values has the whole log.

    Raises:
        ConfigError: a number out of its range.
    """
    if not 0.0 < scale <= 7.0:
        raise ConfigError(f"scale: {scale} must be above 0 and at most 7, where ids end")
    if not 0.0 <= renewed <= 1.0:
        raise ConfigError(f"new-values: {renewed} must be a share from 0 to 1")
    over_days = 1.0 + renewed * (num_days - 1)
    totals = [size if size <= _KEPT_BY_SCALE else max(round(size * scale), _KEPT_BY_SCALE) for size in _TERABYTE_SIZES]
    renewing = tuple(feature for feature, total in enumerate(totals) if total > LARGE_TABLE and over_days > 1.0)
    return TeacherTables(
        sizes=tuple(round(total / over_days) if at in renewing else total for at, total in enumerate(totals)),
        pairs=_TERABYTE_PAIRS,
        skew=skew,
        renewing=renewing,
        renewed=renewed,
        num_days=num_days,
        rows_per_day=rows_per_day,
    )


def exponent(size: int, u: float, skew: float | None) -> float:
    """Exponent of a feature's power law, from its size and a uniform draw: large features are the most skewed."""
    if size <= LARGE_TABLE:
        return 0.75 + 0.4 * u
    return 1.05 + 0.4 * u if skew is None else skew
