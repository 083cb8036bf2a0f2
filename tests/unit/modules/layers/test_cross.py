"""The cross networks against TorchRec's with the same weights."""

from __future__ import annotations

import pytest
import torch
from torchrec.modules.crossnet import CrossNet as TorchRecCrossNet
from torchrec.modules.crossnet import LowRankCrossNet, LowRankMixtureCrossNet
from torchrec.modules.crossnet import VectorCrossNet as TorchRecVectorCrossNet

from modules.layers.cross import CrossNet, MixtureCrossNet, Projection, VectorCrossNet

B, WIDTH, NUM_LAYERS = 17, 12, 3


def x0() -> torch.Tensor:
    return torch.randn(B, WIDTH, generator=torch.Generator().manual_seed(0))


def test_full_rank_equals_torchrecs() -> None:
    ours, theirs = CrossNet(in_features=WIDTH, num_layers=NUM_LAYERS), TorchRecCrossNet(WIDTH, NUM_LAYERS)
    for layer, kernel, bias in zip(ours.layers, theirs.kernels, theirs.bias, strict=True):
        kernel.data.copy_(layer.weight.data)
        bias.data.copy_(layer.bias.data[:, None])
    torch.testing.assert_close(ours(x0()), theirs(x0()), rtol=1e-6, atol=1e-6)


def test_low_rank_equals_torchrecs() -> None:
    ours = CrossNet(in_features=WIDTH, num_layers=NUM_LAYERS, low_rank_dim=2)
    theirs = LowRankCrossNet(WIDTH, NUM_LAYERS, low_rank=2)
    for layer, wide, narrow, bias in zip(ours.layers, theirs.W_kernels, theirs.V_kernels, theirs.bias, strict=True):
        assert layer[0].bias is None
        narrow.data.copy_(layer[0].weight.data)
        wide.data.copy_(layer[1].weight.data)
        bias.data.copy_(layer[1].bias.data)
    torch.testing.assert_close(ours(x0()), theirs(x0()), rtol=1e-6, atol=1e-6)


def test_vectors_equal_torchrecs() -> None:
    ours, theirs = VectorCrossNet(in_features=WIDTH, num_layers=NUM_LAYERS), TorchRecVectorCrossNet(WIDTH, NUM_LAYERS)
    for layer, ours_bias, kernel, bias in zip(ours.layers, ours.biases, theirs.kernels, theirs.bias, strict=True):
        torch.nn.init.normal_(ours_bias)  # starts at zero, where a mistake would not show
        kernel.data.copy_(layer.weight.data.T)
        bias.data.copy_(ours_bias.data[:, None])
    torch.testing.assert_close(ours(x0()), theirs(x0()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_experts", [1, 4])
@pytest.mark.parametrize("projection", ["tanh", "relu", "linear"])
def test_a_mixture_equals_torchrecs(projection: Projection, num_experts: int) -> None:
    """TorchRec's linear experts are those with the identity for s and for C."""
    rank = 2
    ours = MixtureCrossNet(
        in_features=WIDTH, num_layers=NUM_LAYERS, low_rank_dim=rank, num_experts=num_experts, projection=projection
    )
    bend = {"tanh": torch.tanh, "relu": torch.relu, "linear": torch.nn.Identity()}[projection]
    theirs = LowRankMixtureCrossNet(WIDTH, NUM_LAYERS, num_experts=num_experts, low_rank=rank, activation=bend)
    for layer, up, down, mixing, bias in zip(
        ours.layers, theirs.U_kernels, theirs.V_kernels, theirs.C_kernels, theirs.bias, strict=True
    ):
        down.data.copy_(layer.down.weight.data.view(num_experts, rank, WIDTH))
        up.data.copy_(layer.up.weight.data.view(WIDTH, num_experts, rank).transpose(0, 1))
        bias.data.copy_(layer.up.bias.data[:, None])
        mixing.data.copy_(torch.eye(rank) if layer.mixing_KRR is None else layer.mixing_KRR.data)
    if ours.gate is not None:
        for gate, row in zip(theirs.gates, ours.gate.weight.data, strict=True):
            gate.weight.data.copy_(row[None])
    expected = theirs(x0()).reshape(B, WIDTH)  # TorchRec's single expert keeps a dimension of one
    torch.testing.assert_close(ours(x0()), expected, rtol=1e-5, atol=1e-5)


def test_without_layers_it_is_the_identity() -> None:
    assert torch.equal(CrossNet(in_features=WIDTH, num_layers=0)(x0()), x0())
