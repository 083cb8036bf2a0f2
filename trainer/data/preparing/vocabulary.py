"""Vocabularies: how a feature's values become ids, by hash or by dictionary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.data.manifest import FIRST_VALUE_ID
from trainer.data.mixing import salted, scaled
from trainer.data.preparing.lookup import Lookup, LookupFile


class IdsOf(Protocol):
    """One feature's way from values to ids."""

    def ids(self, values: NDArray) -> NDArray[np.int32]:
        """Ids int32 [N] of values uint32 or uint64 [N], none of them missing."""
        ...


@dataclass(frozen=True)
class HashedIds:
    """Ids by hash: from 2 to rows - 1, the same wherever and whenever a value is seen."""

    feature: str
    rows: int

    def ids(self, values: NDArray) -> NDArray[np.int32]:
        """Ids int32 [N] of values uint32 or uint64 [N]."""
        salt = int.from_bytes(hashlib.blake2b(self.feature.encode(), digest_size=8).digest(), "little")
        return (scaled(salted(values, salt), self.rows - FIRST_VALUE_ID) + FIRST_VALUE_ID).astype(np.int32)


def hash_sha256(rows: Mapping[str, int]) -> str:
    """What takes the place of a dictionary's hash: equal exactly when every value has the same id."""
    return hashlib.sha256(json.dumps({"hash": dict(rows)}).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """All features' ways from values to ids, light enough to be sent to a worker process."""

    features: tuple[str, ...]
    rows: tuple[int, ...]
    lookups: tuple[LookupFile, ...] | None = None  # None: by hash
    modulo: bool = False  # whether ids are still to be taken modulo the rows of their tables

    def open(self) -> Sequence[IdsOf]:
        """One for each feature."""
        if self.lookups is not None:
            return [Lookup(file) for file in self.lookups]
        return [HashedIds(name, rows) for name, rows in zip(self.features, self.rows, strict=True)]
