"""A small state, cut into pieces of rows and columns and dealt to ranks, as plans of several ranks would."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.checkpoints.pieces import Pieces, State

COLUMNS = 8


def some_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Whole tensors of all kinds that a run has; keys are made up."""
    draw = torch.Generator().manual_seed(seed)
    return {
        "model/table": torch.randn(13, COLUMNS, generator=draw),
        "model/half": torch.randn(5, COLUMNS, generator=draw).bfloat16(),
        "model/dense.weight": torch.randn(3, 2, generator=draw),
        "model/cube": torch.randn(4, 3, 2, generator=draw),
        "model/none": torch.zeros(0, 4),
        "optimizer/row_sums": torch.rand(13, generator=draw, dtype=torch.float64),
        "optimizer/step": torch.tensor(float(seed)),
        "optimizer/count": torch.tensor([seed, 1 << 40]),
    }


CUT_KEYS = ("model/table", "model/half", "optimizer/row_sums")


def cut(tensors: dict[str, Tensor], *, rows: int, columns: int, rank: int = 0, world_size: int = 1) -> State:
    """The rank's part: views into the tensors, pieces that it does not have left out; small ones are whole everywhere.

    Matrices are cut into `rows` x `columns` pieces, of unequal size where they do not divide; piece i is rank
    i % world_size's. More pieces than rows leave some without any.
    """
    state: dict[str, Pieces | Tensor] = dict(tensors)
    for key in CUT_KEYS:
        whole = tensors[key]
        pieces = (rows, columns)[: whole.dim()]
        boxes = itertools.product(*map(_edges, whole.shape, pieces))
        mine = [box for number, box in enumerate(boxes) if number % world_size == rank]
        parts = {tuple(first for first, _ in box): whole[tuple(slice(*edge) for edge in box)] for box in mine}
        state[key] = Pieces(shape=tuple(whole.shape), parts={at: part for at, part in parts.items() if part.numel()})
    return state


def _edges(length: int, pieces: int) -> Sequence[tuple[int, int]]:
    size = -(-length // pieces)
    return [(min(i * size, length), min((i + 1) * size, length)) for i in range(pieces)]


def assert_same_tensors(left: State, right: State) -> None:
    """Same keys and places, same types, same bits."""
    assert left.keys() == right.keys()
    for key, value in left.items():
        other = right[key]
        pairs = (
            [(part, other.parts[at]) for at, part in value.parts.items()]
            if isinstance(value, Pieces) and isinstance(other, Pieces)
            else [(value, other)]
        )
        for mine, theirs in pairs:
            assert isinstance(mine, Tensor) and isinstance(theirs, Tensor)
            assert mine.dtype == theirs.dtype, key
            assert torch.equal(mine, theirs), key
