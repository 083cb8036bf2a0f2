"""The click log's features and its transforms of numbers."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from trainer.data.criteo import NUMERIC_ID_ROWS, feature_specs, numeric_ids, signed_log1p


def ids_of(*numbers: int) -> list[int]:
    return numeric_ids(np.array(numbers, np.int64), np.zeros(len(numbers), bool)).tolist()


def exact_start(bucket: int) -> int:
    """The least integer x above 2 with ln(x)^2 >= bucket, in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        root = Decimal(bucket).sqrt()
        x = max(3, int(root.exp()) - 2)
        while Decimal(x).ln() < root:
            x += 1
        return x


def test_signed_log1p():
    raw = np.array([[0, 1, -1, 5, 2**62]])
    dense = signed_log1p(raw, np.array([[False, False, False, True, False]]))
    assert dense.dtype == np.float32
    np.testing.assert_allclose(dense, [[0, math.log(2), -math.log(2), 0, math.log(2**62)]], rtol=1e-6)
    assert not np.isnan(signed_log1p(np.array([-(2**63), 2**63 - 1]), np.zeros(2, bool))).any()


def test_small_numbers_have_ids_of_their_own():
    assert ids_of(-(2**63), -4, -3, -2, -1, 0, 1, 2) == [1, 1, 2, 3, 4, 5, 6, 7]
    assert ids_of(3, 4, 5, 7, 8) == [8, 8, 9, 10, 11]  # floor(ln(x)^2) = 1, 1, 2, 3, 4
    assert numeric_ids(np.array([0, 9]), np.array([True, True])).tolist() == [0, 0]


def test_ids_are_pinned():
    """Prepared folders and models depend on them."""
    assert NUMERIC_ID_ROWS == 1914
    assert ids_of(100, 65_535, 65_536, 10**6, 2**31 - 1, 2**63 - 1) == [28, 129, 129, 197, 468, 1913]


@pytest.mark.parametrize("buckets", [range(1, 462), range(462, 1_907, 61), (813, 880, 952)])
def test_buckets_begin_where_the_formula_says(buckets):
    """At the very edges: the first number of each bucket, and the one before it."""
    for bucket in buckets:
        start = exact_start(bucket)
        assert ids_of(start) == [bucket + 7], (bucket, start)
        assert ids_of(start - 1)[0] < bucket + 7, (bucket, start)


def test_ids_rise_with_the_number():
    numbers = np.unique(np.concatenate([np.arange(-10, 70_000), (2 ** np.arange(16, 63, 0.01)).astype(np.int64)]))
    ids = numeric_ids(numbers, np.zeros(len(numbers), bool))
    assert (np.diff(ids) >= 0).all() and ids.max() < NUMERIC_ID_ROWS


def test_feature_specs():
    specs = feature_specs(range(2, 28))
    assert [spec.name for spec in specs[:2]] == ["I1", "I2"] and specs[-1].name == "C26"
    assert [spec.rows for spec in specs[13:]] == list(range(2, 28))
    assert {spec.file for spec in specs} == {"dense", "sparse"}
