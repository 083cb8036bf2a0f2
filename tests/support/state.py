"""The whole state of a sharded run, put together from all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.checkpoints.pieces import Pieces
from trainer.checkpoints.pieces import State as LiveTensors
from trainer.runtime import Runtime

State = dict[str, np.ndarray]


def whole_tensors(tensors: LiveTensors, *, runtime: Runtime) -> State:
    """Key -> whole array, on every rank; replicated tensors must be bit-equal on all ranks."""
    mine: dict[str, Any] = {}
    for key, value in tensors.items():
        if isinstance(value, Pieces):
            mine[key] = (value.shape, [(offsets, part.cpu().numpy().copy()) for offsets, part in value.parts.items()])
        else:
            mine[key] = value.detach().cpu().numpy().copy()
    state: State = {}
    for of_rank in runtime.gather(mine):
        for key, value in of_rank.items():
            if isinstance(value, tuple):
                size, shards = value
                whole = state.setdefault(key, np.full(size, np.nan, dtype=np.float32))
                for offsets, piece in shards:
                    whole[tuple(slice(o, o + n) for o, n in zip(offsets, piece.shape, strict=True))] = piece
            elif key in state:
                np.testing.assert_array_equal(state[key], value, err_msg=f"{key} differs between ranks")
            else:
                state[key] = value
    holes = [key for key, value in state.items() if np.isnan(value).any()]
    assert not holes, f"not covered by any rank's shard, or not finite: {holes}"
    return state


def assert_bit_equal(left: State, right: State) -> None:
    """Same keys, same bits."""
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key], err_msg=key)


def assert_close(left: State, right: State, *, atol: float) -> None:
    """Same keys, values within `atol` of each other and relatively within 1e-5."""
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_allclose(left[key], right[key], atol=atol, rtol=1e-5, err_msg=key)
