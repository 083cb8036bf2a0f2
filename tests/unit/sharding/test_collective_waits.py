"""Waits for collectives: told within the block, around the wait itself, and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from sharding.collective_waits import told_waits


def test_each_wait_of_the_block_is_told(group: dist.ProcessGroup) -> None:
    told: list[str] = []
    before = dist.Work.wait
    with told_waits(begin=lambda: told.append("begin"), end=lambda: told.append("end")):
        work = dist.all_reduce(torch.ones(2), group=group, async_op=True)
        assert told == []
        assert work is not None and work.wait()
        assert told == ["begin", "end"]
        dist.all_to_all_single(torch.empty(2), torch.ones(2), group=group)  # waits by itself
        assert told == ["begin", "end"] * 2
    dist.all_to_all_single(torch.empty(2), torch.ones(2), group=group)
    assert told == ["begin", "end"] * 2
    assert dist.Work.wait is before


def test_a_wait_that_fails_has_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_work: object) -> None:
        raise RuntimeError("a rank is gone")

    monkeypatch.setattr(dist.Work, "wait", lost)
    told: list[str] = []
    with (
        pytest.raises(RuntimeError, match="gone"),
        told_waits(begin=lambda: told.append("begin"), end=lambda: told.append("end")),
    ):
        dist.Work.wait(None)  # type: ignore[arg-type, call-arg]
    assert told == ["begin", "end"]
    assert dist.Work.wait is lost
