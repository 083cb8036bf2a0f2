"""Dot interaction against TorchRec's and against all pairs written out."""

from __future__ import annotations

import pytest
import torch
from torchrec.models.dlrm import InteractionArch

from modules.layers.interaction import DotInteraction


def vectors(num_vectors: int) -> torch.Tensor:
    return torch.randn(6, num_vectors, 5, generator=torch.Generator().manual_seed(num_vectors))


@pytest.mark.parametrize("num_vectors", [1, 2, 5])
def test_it_gives_every_pair_once(num_vectors: int) -> None:
    layer, values = DotInteraction(num_vectors=num_vectors), vectors(num_vectors)
    pairs = [(i, j) for i in range(num_vectors) for j in range(i + 1, num_vectors)]
    found = layer(values)
    assert found.shape == (6, layer.out_features)
    assert layer.out_features == len(pairs)
    for place, (i, j) in enumerate(pairs):
        torch.testing.assert_close(found[:, place], (values[:, i] * values[:, j]).sum(dim=1))


def test_it_equals_torchrecs() -> None:
    values = vectors(5)
    theirs = InteractionArch(4)(values[:, 0], values[:, 1:])
    assert torch.equal(DotInteraction(num_vectors=5)(values), theirs[:, 5:])


def test_it_keeps_nothing_in_a_checkpoint() -> None:
    assert DotInteraction(num_vectors=3).state_dict() == {}
