"""ExactSum: a float64 sum that is the same, bit by bit, in any order of the values and however they are split.

Each value is rounded once to a fixed grid, by adding and subtracting a constant, and sums on a grid
are exact, so nothing depends on order (pre-rounding: Demmel & Nguyen, "Fast Reproducible
Floating-Point Summation", ARITH 2013). Two grids are used: values are split into a multiple of
2^-28 and a remainder that is rounded to a multiple of 2^-67. So the only error is at most 2^-68
(3.4e-21) per value, and the one rounding of the result. Values of `RANGE` or more are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError

RANGE = 1024.0  # smaller magnitudes take the fast way
ERROR_PER_VALUE = 2.0**-68
NUM_LIMBS = 36  # of 32 bits: 2^40 of the largest float64 in units of 2^-67
_UNIT_BITS = 67
_COARSE_BITS = 28
_COARSE_SHIFT = _UNIT_BITS - _COARSE_BITS
# Adding 1.5 * 2^52 grids leaves no digit finer than the grid, for either sign.
_TO_COARSE = 1.5 * 2.0 ** (52 - _COARSE_BITS)
_TO_FINE = 1.5 * 2.0 ** (52 - _UNIT_BITS)
# Coarse multiples sum up to 2^14 * 2^10 / 2^-28 = 2^52 grids, remainders to 2^14 * 2^-29 / 2^-67 = 2^52: both below
# 2^53, where float64 still counts by one.
_CHUNK_VALUES = 1 << 14
_MOST_IN_INT64 = 1 << 24  # values of up to 2^38 grids, and remainders of up to 2^38 units: 2^62 in all
_MANTISSA_BITS = 53
_HALF_MANTISSA_BITS = 26


@dataclass(frozen=True)
class ExactSum:
    """A sum; sums add up to the sum of all their values, the same in any order.

    Attributes:
        units: The sum in units of 2^-67.
    """

    units: int = 0

    @staticmethod
    def of(values: NDArray[np.floating]) -> ExactSum:
        """The sum of values [n]; narrower floats are widened to float64 first.

        Raises:
            DataError: a value is not finite.
        """
        units = 0
        for first in range(0, len(values), _CHUNK_VALUES):
            units += _units_of_chunk(values[first : first + _CHUNK_VALUES].astype(np.float64, copy=False))
        return ExactSum(units)

    def __add__(self, other: ExactSum) -> ExactSum:
        return ExactSum(self.units + other.units)

    @property
    def value(self) -> float:
        """The sum, rounded once."""
        return self.units / (1 << _UNIT_BITS)

    def over(self, count: int) -> float:
        """The sum divided by a count, rounded once."""
        return self.units / (count << _UNIT_BITS)

    def limbs(self) -> NDArray[np.int64]:
        """The sum as [NUM_LIMBS] digits to base 2^32, all of its sign: arrays of up to 2^31 sums add up."""
        rest, sign = abs(self.units), -1 if self.units < 0 else 1
        digits = [sign * (rest >> 32 * limb & 0xFFFFFFFF) for limb in range(NUM_LIMBS)]
        assert rest >> 32 * NUM_LIMBS == 0, "a sum of more than 2^40 values of the largest size"
        return np.array(digits, dtype=np.int64)

    @staticmethod
    def from_limbs(limbs: NDArray[np.int64]) -> ExactSum:
        """The sum whose `limbs`, or the sum of several sums' limbs, these are."""
        return ExactSum(sum(int(digit) << 32 * limb for limb, digit in enumerate(limbs)))


class ExactSums:
    """One exact sum for each of G groups.

    Args:
        num_groups: G.
    """

    def __init__(self, num_groups: int) -> None:
        self._units = [0] * num_groups
        # What is not yet in there: in coarse grids, and remainders in units.
        self._coarse = np.zeros(num_groups, dtype=np.int64)
        self._fine = np.zeros(num_groups, dtype=np.int64)
        self._in_int64 = 0

    def add(self, values: NDArray[np.floating], groups: NDArray[np.int64]) -> None:
        """Adds values [n] to the sums of their groups [n].

        Raises:
            DataError: a value is not finite.
        """
        for first in range(0, len(values), _CHUNK_VALUES):
            chunk = values[first : first + _CHUNK_VALUES].astype(np.float64, copy=False)
            group = groups[first : first + _CHUNK_VALUES]
            if not _is_small(chunk):
                large = ~(np.abs(chunk) < RANGE)
                for index in np.unique(group[large]).tolist():
                    self._units[index] += _units_of_large(chunk[large & (group == index)])
                chunk, group = chunk[~large], group[~large]
            if self._in_int64 + len(chunk) > _MOST_IN_INT64:
                self._settle()
            coarse = (chunk + _TO_COARSE) - _TO_COARSE
            np.add.at(self._coarse, group, (coarse * 2.0**_COARSE_BITS).astype(np.int64))
            np.add.at(self._fine, group, np.rint((chunk - coarse) * 2.0**_UNIT_BITS).astype(np.int64))
            self._in_int64 += len(chunk)

    def merge(self, other: ExactSums) -> None:
        """Adds another's sums to these."""
        self._settle()
        other._settle()
        self._units = [units + more for units, more in zip(self._units, other._units, strict=True)]

    @staticmethod
    def from_sums(sums: Sequence[ExactSum]) -> ExactSums:
        """Sums that start with these."""
        made = ExactSums(len(sums))
        made._units = [one.units for one in sums]
        return made

    def of(self, group: int) -> ExactSum:
        """The sum of one group."""
        self._settle()
        return ExactSum(self._units[group])

    def _settle(self) -> None:
        """Empties the integers of 64 bits, so that they do not run over."""
        if self._in_int64:
            for group, (coarse, fine) in enumerate(zip(self._coarse.tolist(), self._fine.tolist(), strict=True)):
                self._units[group] += (coarse << _COARSE_SHIFT) + fine
            self._coarse[:] = self._fine[:] = 0
            self._in_int64 = 0


def _is_small(values: NDArray[np.float64]) -> bool:
    """Whether all magnitudes are below RANGE; NaN is not."""
    return not len(values) or bool(values.max() < RANGE and values.min() > -RANGE)


def _units_of_chunk(values: NDArray[np.float64]) -> int:
    units = 0
    if not _is_small(values):
        large = ~(np.abs(values) < RANGE)
        units, values = _units_of_large(values[large]), values[~large]
    coarse = (values + _TO_COARSE) - _TO_COARSE
    fine = ((values - coarse) + _TO_FINE) - _TO_FINE
    return (
        units
        + (int(float(coarse.sum()) * 2.0**_COARSE_BITS) << _COARSE_SHIFT)
        + int(float(fine.sum()) * 2.0**_UNIT_BITS)
    )


def _units_of_large(values: NDArray[np.float64]) -> int:
    """Units in values of magnitude RANGE or more, which are whole numbers of units."""
    if not np.isfinite(values).all():
        raise DataError(
            "an exact sum was asked of a value that is NaN or infinite; remove it, or look where it is from"
        )
    fractions, exponents = np.frexp(values)
    mantissas = (fractions * 2.0**_MANTISSA_BITS).astype(np.int64)
    units = 0
    for exponent in np.unique(exponents).tolist():
        # In halves: int64 then holds the sums of 2^36 of them.
        of_exponent = mantissas[exponents == exponent]
        high = int((of_exponent >> _HALF_MANTISSA_BITS).sum())
        low = int((of_exponent & ((1 << _HALF_MANTISSA_BITS) - 1)).sum())
        units += ((high << _HALF_MANTISSA_BITS) + low) << (exponent - _MANTISSA_BITS + _UNIT_BITS)
    return units
