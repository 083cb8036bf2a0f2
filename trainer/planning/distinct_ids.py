"""How many distinct ids a batch has where their frequencies follow Zipf's law, and the law that a batch's count tells.

The id of rank r, of R, comes with probability p_r = r^-s / (1^-s + ... + R^-s). Of n independent ids, the expected
number of distinct ones is the sum over ranks of 1 - (1 - p_r)^n.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

_RANKS_ONE_BY_ONE = 4_096
_NODES = 1_025  # odd, as Simpson's rule wants
_STEEPEST = 32.0  # all of 4 billion ids but one are the first: steeper makes no difference


@functools.lru_cache(maxsize=1 << 16)
def expected_distinct(*, table_rows: int, num_ids: float, zipf: float) -> float:
    """Distinct ids to expect among `num_ids`; at most these, and at most `table_rows`.

    The first ranks are summed one by one. Over the others the sum is an integral in the logarithm of the rank, by
    Simpson's rule: within 1e-5 of the sum, in under a millisecond for any table.

    Args:
        table_rows: R, at least 1.
        num_ids: n, not negative; the mean of a batch need not be whole.
        zipf: s, not negative; 0: all ids are as frequent.
    """
    if num_ids <= 0:
        return 0.0
    log_ranks, weights = _ranks(table_rows)
    shares = np.exp(-zipf * log_ranks)
    shares /= weights @ shares
    with np.errstate(divide="ignore"):  # a share of 1, where there is one rank
        missed = num_ids * np.log1p(-np.minimum(shares, 1.0))
    found = float(weights @ -np.expm1(missed))
    return min(found, num_ids, float(table_rows))


def fitted_zipf(*, table_rows: int, num_ids: float, distinct: float) -> float:
    """The s at which `num_ids` ids are expected to hold `distinct` ones, from 0 to 32; 0 where s makes no difference.

    Args:
        table_rows: Rows of the table.
        num_ids: Ids that were counted: best as many as a batch has, since real frequencies follow no one law.
        distinct: How many different ones were among them.
    """

    def too_many(zipf: float) -> float:
        return expected_distinct(table_rows=table_rows, num_ids=num_ids, zipf=zipf) - distinct

    if num_ids <= 1 or too_many(0.0) <= 0:
        return 0.0
    if too_many(_STEEPEST) >= 0:
        return _STEEPEST
    return float(brentq(too_many, 0.0, _STEEPEST, xtol=1e-4))


@functools.lru_cache(maxsize=256)
def _ranks(table_rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of ranks, and how many ranks each stands for."""
    alone = np.log(np.arange(1, min(table_rows, _RANKS_ONE_BY_ONE) + 1, dtype=np.float64))
    if table_rows <= _RANKS_ONE_BY_ONE:
        return alone, np.ones_like(alone)
    # Rank r as the integral from r - 1/2 to r + 1/2.
    others = np.linspace(np.log(_RANKS_ONE_BY_ONE + 0.5), np.log(table_rows + 0.5), _NODES)
    simpson = np.full(_NODES, 2.0)
    simpson[1::2] = 4.0
    simpson[0] = simpson[-1] = 1.0
    simpson *= (others[1] - others[0]) / 3
    return np.concatenate([alone, others]), np.concatenate([np.ones_like(alone), simpson * np.exp(others)])
