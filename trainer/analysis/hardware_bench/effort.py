"""Effort: how much is measured, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The size of a measurement."""

    quick: bool = False  # a few small points: shows that all works, and is no measurement
    repeats: int = 7  # whose median counts
    seconds: float = 0.06  # that the repeats of a short point take together
    disk_mib: int = 1024  # of the file that is read

    @staticmethod
    def quickest() -> Effort:
        """For a first look."""
        return Effort(quick=True, repeats=2, seconds=0.002, disk_mib=16)
