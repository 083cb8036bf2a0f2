"""Staging: a copy that training cannot change, in buffers that are made once."""

from __future__ import annotations

import torch

from tests.support.cut_states import assert_same_tensors, cut, some_tensors
from trainer.checkpoints.pieces import Pieces, State
from trainer.checkpoints.staging import Staging


def tensors_of(state: State) -> dict[str, torch.Tensor]:
    found = {}
    for key, value in state.items():
        parts = value.parts.items() if isinstance(value, Pieces) else [((), value)]
        found |= {f"{key} {at}": part for at, part in parts}
    return found


def test_a_copy_stands_whatever_becomes_of_the_state() -> None:
    live = some_tensors(3)
    copied = Staging().copy(cut(live, rows=2, columns=2))
    for value in live.values():
        value.fill_(9)
    assert_same_tensors(copied, cut(some_tensors(3), rows=2, columns=2))


def test_buffers_are_filled_again() -> None:
    staging = Staging()
    first = staging.copy(cut(some_tensors(3), rows=2, columns=2))
    places = {key: part.data_ptr() for key, part in tensors_of(first).items()}
    second = staging.copy(cut(some_tensors(4), rows=2, columns=2))
    assert {key: part.data_ptr() for key, part in tensors_of(second).items()} == places
    assert_same_tensors(second, cut(some_tensors(4), rows=2, columns=2))


def test_a_tensor_of_another_size_gets_a_buffer_of_its_own() -> None:
    staging = Staging()
    staging.copy({"a": torch.zeros(3)})
    assert_same_tensors(staging.copy({"a": torch.ones(2, 2)}), {"a": torch.ones(2, 2)})
    assert_same_tensors(staging.copy({"a": torch.ones(2, 2).bfloat16()}), {"a": torch.ones(2, 2).bfloat16()})


def test_it_asks_for_no_gradient() -> None:
    copied = Staging().copy({"a": torch.zeros(3, requires_grad=True)})["a"]
    assert isinstance(copied, torch.Tensor) and not copied.requires_grad
