"""Bagging without a bag: how often a row counts for a member, from the member's seed and the row's place alone.

A bootstrap sample of n rows holds each of them Binomial(n, 1/n) times, for large n Poisson(1) times and each row by
itself; that way a stream can be sampled (Oza and Russell, "Online Bagging and Boosting", AISTATS 2001). The count is
drawn by inverting the distribution function at a counter-based random number, splitmix64 (Steele, Lea, Flood, OOPSLA
2014), in integers throughout: every device, every layout over ranks and every epoch gives a row the same count.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from math import factorial

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_UNIFORM_BITS = 53
_TERMS = 30  # of the series of 1/e; 1/30! is far below 2**-53


def bag_counts(part_B: Tensor, row_B: Tensor, *, seed: int) -> Tensor:
    """How often each row counts for the member of this seed: Poisson(1), independent of other rows and other seeds.

    Args:
        part_B: Index of the row's part, an integer tensor [B].
        row_B: The row's number in its part, an integer tensor [B].
        seed: Of the member's bag.

    Returns:
        float32 [B]: 0, 1, 2 ...
    """
    key_B = _mixed((part_B.long() + 1) * _signed(_GOLDEN) + _signed(seed))
    random_B = _mixed((row_B.long() + 1) * _signed(_GOLDEN) + key_B)
    uniform_B = _shifted(random_B, 64 - _UNIFORM_BITS)
    thresholds = torch.tensor(_thresholds(), dtype=torch.int64, device=uniform_B.device)
    return torch.bucketize(uniform_B, thresholds, right=True).float()


@functools.cache
def _thresholds() -> tuple[int, ...]:
    """P(count <= k) in units of 2**-53, for k = 0, 1 ... up to where it is 1; by fractions, so the same everywhere."""
    inverse_e = sum((Fraction((-1) ** k, factorial(k)) for k in range(_TERMS)), start=Fraction(0))
    cumulated, found = Fraction(0), []
    for k in range(_TERMS):
        cumulated += inverse_e / factorial(k)
        found.append(round(cumulated * 2**_UNIFORM_BITS))
        if found[-1] == 2**_UNIFORM_BITS:
            break
    return tuple(found)


def _mixed(state: Tensor) -> Tensor:
    """The finalizer of splitmix64; int64 stands in for uint64, whose sums and products have the same bits."""
    state = (state ^ _shifted(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shifted(state, 27)) * _signed(_MIX_2)
    return state ^ _shifted(state, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted right with zeros coming in, as for unsigned numbers; torch's own shift repeats the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the lower 64 bits of a number."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
