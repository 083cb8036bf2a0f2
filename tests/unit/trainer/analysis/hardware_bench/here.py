"""A rank that is alone in the test's own process, and what it measures quickly."""

from __future__ import annotations

import threading
from typing import Any, cast

import torch

from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.rank_processes import RankHere

QUICK = Effort(quick=True, repeats=2, seconds=0.0005, disk_mib=8)


def alone() -> RankHere:
    """It meets nobody, and leaves the heap as it is."""
    barrier: Any = cast(Any, threading.Barrier(1))
    here = RankHere(rank=0, num_ranks=1, device=torch.device("cpu"), barrier=barrier)
    here._has_heap = True
    return here
