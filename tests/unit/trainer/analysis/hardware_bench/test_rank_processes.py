"""Rank processes: all at once, answers by rank, and errors that end the measurement with a sentence."""

from __future__ import annotations

import os
import time

import pytest

from configs.errors import ChorusError
from trainer.analysis.hardware_bench.rank_processes import RankHere, RankProcesses


def meet_and_tell(here: RankHere, late: float) -> tuple[int, int, str | None, float, float]:
    time.sleep(late * here.rank)
    came = time.monotonic()
    here.meet()
    return here.rank, here.num_ranks, os.environ.get("OMP_NUM_THREADS"), came, time.monotonic()


def fail_on_one(here: RankHere) -> None:
    if here.rank == 1:
        raise ChorusError("no such thing here")
    here.meet()


def end_at_once(here: RankHere) -> None:
    os._exit(7)


def test_two_ranks() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    with RankProcesses(2, device="cpu") as ranks:
        told = ranks.run(meet_and_tell, 0.3)
        assert [answer[:3] for answer in told] == [(0, 2, "1"), (1, 2, "1")]
        assert told[0][4] >= told[1][3], "the first did not wait for the second"
        with pytest.raises(ChorusError, match="^no such thing here$"):
            ranks.run(fail_on_one)
        with pytest.raises(ChorusError, match="end_at_once: the process of rank 0 ended with code 7; "):
            ranks.run(end_at_once)
    assert os.environ.get("OMP_NUM_THREADS") == before
    assert not any(process.is_alive() for process in ranks._processes)
