"""Score: the keys of batch scoring."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from configs.section import Section, positive

ScoreType = Literal["float32", "float16"]
ScoreFigures = Literal["exact", "streaming"]
ScoreTables = Literal["sharded", "fp16", "int8"]
LEAST_METRICS_GB = 0.0625


@dataclass(frozen=True, kw_only=True)
class Score(Section):
    """Batch scoring (trainer/score.py)."""

    parts: tuple[str, ...] = ()
    """Parts to score; empty: every part of data.root, or of what is prepared from `input`."""

    input: tuple[str, ...] = ()
    """Raw logs (.tsv, .tsv.gz) to score instead of data.root's parts; they are prepared first, each a part."""

    dictionary: str = ""
    """The prepared folder whose dictionary gives the ids of `input`; empty: data.root."""

    keep: tuple[str, ...] = ()
    """Columns that pass through into the predictions under their own names: features, as C1, or kept columns."""

    batch_size: int = 4_096
    """Rows per step and rank; batches are cut from row numbers, never from the world size."""

    range_rows: int = 65_536
    """Rows of one prediction file; ranges are dealt to the ranks in turn, and finished ones are not scored again."""

    dtype: ScoreType = "float32"
    """Of the written logits; float16 halves them and keeps three digits."""

    probabilities: bool = False
    """Whether each member's probability is written beside its logit, as float32."""

    tables: ScoreTables = "sharded"
    """sharded: over all ranks, as they were trained; fp16, int8: every rank holds all of them, rows quantised."""

    merge_file: str = ""
    """A merge.toml, as tools/merge_predictions.py writes it; empty: merge.rule."""

    figures: ScoreFigures = "exact"
    """exact: AUC and average precision to the last digit; streaming: AUC in a proven bracket, in one reading."""

    metrics_memory_gb: float = 1.0
    """What the exact figures may hold in memory (GiB); with less, the files are read more often."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("batch_size", self.batch_size),
            positive("range_rows", self.range_rows),
            _doubled("parts", self.parts, why="a row is scored once"),
            _doubled("input", self.input, why="a row is scored once"),
            _doubled("keep", self.keep, why="name it once"),
            "dictionary: there is no score.input that needs it; name the raw logs, or remove it"
            if self.dictionary and not self.input
            else None,
            None
            if self.metrics_memory_gb >= LEAST_METRICS_GB  # NaN is refused, too
            else f"metrics_memory_gb: {self.metrics_memory_gb!r} is too little; give {LEAST_METRICS_GB} or more",
        )


def _doubled(key: str, names: tuple[str, ...], *, why: str) -> str | None:
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    return f"{key}: {doubled[0]!r} is named twice; {why}" if doubled else None
