"""The report's traffic is what the collectives of a step really carry, counted as they are called."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from configs.schema import RunConfig
from tests.support.runs import placed, small_run
from trainer.assembly import assemble_training
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.runtime import Runtime

IDS = ("ids_all_to_all",)
POOLED = ("pooled_all_to_all", "pooled_gradients_all_to_all")
SUMS = ("reduce_scatter", "gradients_all_gather")
# Collective, and what it carries -> the kinds of the report. Sizes that TorchRec sends ahead, as int64, are left out.
KINDS = {
    ("all_to_all_single", torch.int32): IDS,
    ("all_to_all_single", torch.float32): POOLED,
    ("reduce_scatter_tensor", torch.float32): SUMS[:1],
    ("all_gather_into_tensor", torch.float32): SUMS[1:],
    ("all_reduce", torch.float32): ("dense_all_reduce",),
}


@contextlib.contextmanager
def counting() -> Iterator[Counter[tuple[str, torch.dtype]]]:
    """Bytes that this rank sends to others, by collective and type."""
    sent: Counter[tuple[str, torch.dtype]] = Counter()

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(dist, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            group = kwargs.get("group")
            size, rank = dist.get_world_size(group), dist.get_rank(group)
            names = ("tensor",) if name == "all_reduce" else ("output", "input") if not args else ()
            data = kwargs[names[-1]] if names and names[-1] in kwargs else args[0 if name == "all_reduce" else 1]
            whole = data.numel() * data.element_size()
            if name == "all_to_all_single":
                splits = kwargs.get("input_split_sizes") or [data.shape[0] // size] * size
                part = whole * (sum(splits) - splits[rank]) // max(sum(splits), 1)
            elif name == "all_gather_into_tensor":
                part = whole * (size - 1)
            else:
                part = whole * (size - 1) // size * (2 if name == "all_reduce" else 1)
            sent[name, data.dtype] += part
            return real(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for name in {name for name, _ in KINDS}:
            stack.enter_context(mock.patch.object(dist, name, counted(name)))
        yield sent


def one_step(runtime: Runtime, config: RunConfig, folder: str) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes this rank sent in a step and what the report says, both by the kinds of KINDS joined with +."""
    assembled = assemble_training(config, folder=folder, runtime=runtime)
    training = assembled.training
    reader = BatchReader(
        source=training.source, batch_size=config.train.batch_size, rank=runtime.rank, world_size=runtime.world_size
    )
    order = RowOrder(num_rows=training.source.num_rows, seed=config.data.seed, window=config.data.shuffle_window)
    batch = next(iter(reader.batches(order)))
    training.task.begin_step(step=0, rank=runtime.rank)
    with counting() as sent:
        training.optimizer.zero_grad()
        loss, _ = training.model(batch)
        loss.backward()
        training.optimizer.step()
    said = {kind: of_ranks[runtime.rank] for kind, of_ranks in assembled.report.sent_bytes_per_rank.items()}
    return (
        {"+".join(kinds): sent[key] for key, kinds in KINDS.items()},
        {"+".join(kinds): sum(said[kind] for kind in kinds) for kinds in KINDS.values()},
    )


def steps(ranks: Any, tmp_path: Any, *overrides: str) -> list[tuple[dict[str, int], dict[str, int]]]:
    return list(ranks(2).run(one_step, small_run(*overrides), str(tmp_path)))


@pytest.mark.parametrize(
    ("placement", "more"),
    [
        ("table_wise", ()),
        (
            "column_wise",
            tuple(f"--tables.{group}.{key}" for group in ("shared", "own") for key in ("dim=8", "optimizer=sgd")),
        ),
    ],
)
def test_whole_bags(ranks, tmp_path, placement, more):
    for sent, said in steps(ranks, tmp_path, *placed(placement), *more):
        assert sent == said
        assert sent["+".join(IDS)] > 0 < sent["+".join(POOLED)]


def test_rows(ranks, tmp_path):
    of_ranks = steps(ranks, tmp_path, *placed("row_wise"))
    ids = [(sent.pop("+".join(IDS)), said.pop("+".join(IDS))) for sent, said in of_ranks]
    for sent, said in of_ranks:
        assert sent == said
        assert min(sent[kind] for kind in SUMS) > 0
    # Ids go where they lie, which the report takes to be everywhere alike.
    assert sum(sent for sent, _ in ids) == pytest.approx(sum(said for _, said in ids), rel=0.1)
