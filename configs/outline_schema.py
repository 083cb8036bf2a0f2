"""DataOutline: what a click log holds, in numbers, for planning machines where the log itself is not at hand.

The files of configs/outlines/ are such. tools/plan_capacity.py reads prepared folders and data reports as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.section import Section, not_negative, positive


@dataclass(frozen=True, kw_only=True)
class OutlinedFeature(Section):
    """A feature that looks up a table."""

    rows: int
    """Rows of its table: distinct values, and those of missing and rare ones."""

    mean_ids: float = 1.0
    """Ids of a row's bag, in the mean; also called the pooling factor."""

    zipf: float = 0.0
    """s in frequency ~ rank^-s of its ids; 0: all are as frequent. Skewed ids are in the cache more often, and fewer
    rows are updated."""

    first_half: float = 0.5
    """Share of the ids that are in the first half of the table's rows. Dictionaries that number frequent values first
    have more, and the first ranks of a table that is split by rows then look up more."""

    def __post_init__(self) -> None:
        half = self.first_half
        self.refuse(
            positive("rows", self.rows),
            positive("mean_ids", self.mean_ids),
            not_negative("zipf", self.zipf),
            None if 0 < half < 1 else f"first_half: {half!r} is not between 0 and 1",
        )


@dataclass(frozen=True, kw_only=True)
class DataOutline(Section):
    """A click log in numbers."""

    num_rows: int
    """Rows of an epoch of training."""

    score_rows: int = 0
    """Rows to score; 0: as many as num_rows."""

    dense: int = 0
    """Numeric features."""

    stored_bytes: int = 0
    """Of a row on the disk, prepared; 0: 4 for each number, id and label."""

    features: dict[str, OutlinedFeature]
    """Feature -> its table and its ids, in column order."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("num_rows", self.num_rows),
            not_negative("score_rows", self.score_rows),
            not_negative("dense", self.dense),
            not_negative("stored_bytes", self.stored_bytes),
            None if self.features else "features: none; give at least one, as [features.C1] with rows = 1_000",
        )
