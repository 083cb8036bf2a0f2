"""Mixing: one-to-one scramblings of 32- and 64-bit values, which spread any values evenly.

32 bits: the finaliser of MurmurHash3 (Appleby); 64 bits: that of splitmix64 (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS_32 = (0x85EBCA6B, 0xC2B2AE35)
_MULTIPLIERS_64 = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def mix(values: NDArray) -> NDArray:
    """Scrambles uint32 or uint64 values of any shape; a new array of the same type."""
    if values.dtype == np.uint32:
        shifts, multipliers = (16, 13, 16), _MULTIPLIERS_32
    else:
        shifts, multipliers = (30, 27, 31), _MULTIPLIERS_64
    as_type = values.dtype.type
    mixed: NDArray = values ^ (values >> as_type(shifts[0]))
    for shift, multiplier in zip(shifts[1:], multipliers, strict=True):
        mixed *= as_type(multiplier)
        mixed ^= mixed >> as_type(shift)
    return mixed


def unmix(mixed: NDArray) -> NDArray:
    """The values that `mix` made these of."""
    bits = mixed.dtype.itemsize * 8
    shifts, multipliers = ((16, 13, 16), _MULTIPLIERS_32) if bits == 32 else ((31, 27, 30), _MULTIPLIERS_64)
    as_type = mixed.dtype.type
    values = _undo_shift(mixed, shifts[0])
    for shift, multiplier in zip(shifts[1:], reversed(multipliers), strict=True):
        values = _undo_shift(values * as_type(pow(multiplier, -1, 1 << bits)), shift)
    return values


def _undo_shift(values: NDArray, shift: int) -> NDArray:
    as_type = values.dtype.type
    found = values
    known = shift
    while known < values.dtype.itemsize * 8:  # each round knows `shift` bits more, from the top
        found = values ^ (found >> as_type(shift))
        known += shift
    return found


def salted(values: NDArray, salt: int) -> NDArray:
    """`mix` of the values xor a salt: one scrambling of many."""
    return mix(values ^ values.dtype.type(salt & ((1 << values.dtype.itemsize * 8) - 1)))


def scaled(mixed: NDArray, size: int) -> NDArray[np.int64]:
    """Mixed values mapped onto 0 .. size - 1 in order (size at most 2^32), by their upper 32 bits."""
    upper = mixed.astype(np.uint64) if mixed.dtype == np.uint32 else mixed >> np.uint64(32)
    upper *= np.uint64(size)
    upper >>= np.uint64(32)
    return upper.view(np.int64)
