"""DataFacts: what planning needs to know of the rows: tables, bag lengths, skew, how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.data.reading.source import SourceFeatures


@dataclass(frozen=True, kw_only=True)
class IdTraffic:
    """How a feature's ids come."""

    mean_ids: float = 1.0  # of a row
    zipf: float = 0.0  # s in frequency ~ rank^-s; 0: uniform


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The rows in numbers."""

    features: SourceFeatures
    traffic: Mapping[str, IdTraffic]  # id feature -> how its ids come
    train_rows: int  # of an epoch
    score_rows: int
    stored_bytes: int  # of a row on the disk
    origin: str  # where this is from, for people
