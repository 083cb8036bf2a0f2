"""The cross network against TorchRec's with the same weights."""

from __future__ import annotations

import torch
from torchrec.modules.crossnet import CrossNet as TorchRecCrossNet
from torchrec.modules.crossnet import LowRankCrossNet

from modules.layers.cross import CrossNet

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


def test_without_layers_it_is_the_identity() -> None:
    assert torch.equal(CrossNet(in_features=WIDTH, num_layers=0)(x0()), x0())
