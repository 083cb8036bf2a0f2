"""The Criteo click log: its fields, its features, and its transforms of numbers.

A line is a label (0 or 1; the contest's test file has none), 13 integers I1..I13 and 26 categoricals C1..C26,
separated by tabs; an empty field is a missing value; there is no header and the lines are in time order.
"""

from __future__ import annotations

import decimal
import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.data.manifest import DENSE_FILE, NUMERIC_ID_SUFFIX, SPARSE_FILE, FeatureSpec

NUM_DENSE = 13
NUM_SPARSE = 26
DENSE_NAMES = tuple(f"I{number}" for number in range(1, NUM_DENSE + 1))
SPARSE_NAMES = tuple(f"C{number}" for number in range(1, NUM_SPARSE + 1))
NUMERIC_ID_NAMES = tuple(f"{name}{NUMERIC_ID_SUFFIX}" for name in DENSE_NAMES)
DENSE_TRANSFORM = "signed_log1p"
NUMERIC_IDS_TRANSFORM = "floor_ln_squared"

_LOWEST_OWN_ID = -3  # the click logs hold -1, -2 and, rarely, -3
_SMALL = 1 << 16
NUM_BUCKETS = 1_906  # floor(ln(2^63 - 1)^2)


def feature_specs(table_rows: Sequence[int]) -> tuple[FeatureSpec, ...]:
    """The 39 features of prepared Criteo data; `table_rows` has one number for each of C1..C26."""
    dense = (
        FeatureSpec(name=name, kind="dense", file=DENSE_FILE, column=column, transform=DENSE_TRANSFORM)
        for column, name in enumerate(DENSE_NAMES)
    )
    sparse = (
        FeatureSpec(name=name, kind="id", file=SPARSE_FILE, column=column, rows=int(rows))
        for column, (name, rows) in enumerate(zip(SPARSE_NAMES, table_rows, strict=True))
    )
    return (*dense, *sparse)


def signed_log1p(raw: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """sign(x) * ln(1 + |x|) as float32, 0.0 where missing; both arguments of one shape."""
    wide = raw.astype(np.float64)
    dense = np.log1p(np.abs(wide))
    np.copysign(dense, wide, out=dense)
    dense[missing] = 0.0
    return dense.astype(np.float32)


@functools.cache
def _bucket_starts() -> NDArray[np.int64]:
    """The least x above 2 of each bucket floor(ln(x)^2) = 1, 2, 3 ... that an int64 can fall in."""
    # In 40 digits: doubles miss the edges above 2^41, and not everywhere by the same.
    with decimal.localcontext(decimal.Context(prec=40)):
        starts = [math.ceil(decimal.Decimal(bucket).sqrt().exp()) for bucket in range(1, NUM_BUCKETS + 1)]
    return np.array(starts, np.int64)


# Missing, far below zero, then one each for -3 .. 2, then the buckets.
NUMERIC_ID_ROWS = 2 + (2 - _LOWEST_OWN_ID + 1) + NUM_BUCKETS


def numeric_ids(raw: NDArray[np.int64], missing: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Integers as ids int32 below NUMERIC_ID_ROWS, a function of the number alone.

    0 missing, 1 below -3, an id each for -3 to 2, and above 2 one for each value of floor(ln(x)^2), as the winners of
    the Kaggle contest did (3 Idiots, "Field-aware factorization machines for CTR prediction", RecSys 2016).
    """
    ids = _small_ids()[np.clip(raw, _LOWEST_OWN_ID - 1, _SMALL - 1) - (_LOWEST_OWN_ID - 1)]
    large = raw >= _SMALL
    if large.any():
        ids[large] = _own_ids(raw[large])
    ids[missing] = 0
    return ids


@functools.cache
def _small_ids() -> NDArray[np.int32]:
    return _own_ids(np.arange(_LOWEST_OWN_ID - 1, _SMALL, dtype=np.int64))


def _own_ids(raw: NDArray[np.int64]) -> NDArray[np.int32]:
    places = np.searchsorted(_bucket_starts(), raw, side="right")
    ids = np.where(raw > 2, places + (2 - _LOWEST_OWN_ID + 2), raw - _LOWEST_OWN_ID + 2)
    return np.where(raw < _LOWEST_OWN_ID, 1, ids).astype(np.int32)
