"""Ranks: votes over the main group and, beside it, over a group of a thread's own."""

from __future__ import annotations

import threading

import pytest
import torch

from configs.errors import DataError
from tests.support.ranks import RankPool
from trainer.runtime import Runtime
from trainer.votes import Ranks


def ask_everything(ranks: Ranks, rank: int) -> tuple[object, ...]:
    def fail_on_1() -> None:
        if rank == 1:
            raise DataError("no such part")

    with pytest.raises(DataError, match="no such part"):
        ranks.together(fail_on_1)
    with pytest.raises(DataError, match="of rank 0"):
        ranks.from_main(lambda: (_ for _ in ()).throw(DataError("of rank 0")))
    ranks.wait()
    summed = ranks.sum(torch.tensor([rank + 1.0, 10.0]))
    return ranks.is_main, ranks.world_size, summed.tolist(), ranks.gather(rank), ranks.from_main(lambda: f"from {rank}")


def votes_of_two_threads(runtime: Runtime) -> tuple[object, object, bool]:
    """The main thread votes 200 times while another one's votes wait for a late rank."""
    side = runtime.open_side_group()
    found: list[object] = []
    voted = threading.Event()

    def vote() -> None:
        if runtime.rank == 1:
            voted.wait()
        found.append(ask_everything(side, runtime.rank))

    thread = threading.Thread(target=vote)
    thread.start()
    for step in range(200):
        assert runtime.gather((step, runtime.rank)) == [(step, rank) for rank in range(runtime.world_size)]
    waited = thread.is_alive()
    runtime.gather(waited)  # both have looked
    voted.set()
    thread.join()
    return found[0], ask_everything(runtime.ranks, runtime.rank), waited


def test_two_threads_vote_beside_each_other() -> None:
    pool = RankPool(2)
    try:
        for rank, (beside, main, waited) in enumerate(pool.run(votes_of_two_threads)):
            assert beside == main == (rank == 0, 2, [3.0, 20.0], [0, 1], "from 0")
            assert waited
    finally:
        pool.close()


def test_one_rank_agrees_with_itself(runtime: Runtime) -> None:
    values = torch.tensor([1.0, 2.0])
    for ranks in (runtime.ranks, runtime.open_side_group()):
        assert ranks.sum(values) is values
        assert values.tolist() == [1.0, 2.0]
        assert ranks.gather("mine") == ["mine"]
        assert ranks.together(lambda: 4) == ranks.from_main(lambda: 4) == 4
        ranks.wait()
