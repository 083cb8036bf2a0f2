"""How linear layers start."""

from __future__ import annotations

import math

import torch
from torch import nn

from modules.initial_weights import start_as
from modules.layers.mlp import MLP


def test_xavier_normal_has_its_variance_and_no_bias() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 100, bias=False))
    start_as(net, "xavier_normal")
    for layer in (net[0], net[1]):
        expected = math.sqrt(2 / sum(layer.weight.shape))
        assert abs(layer.weight.std().item() / expected - 1) < 0.03
        assert abs(layer.weight.mean().item()) < 0.05 * expected
    assert not net[0].bias.any()


def test_pytorchs_start_is_left_alone() -> None:
    net = MLP(in_features=4, hidden=(3,), out_features=1, batch_norm=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    start_as(net, "pytorch")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    start_as(net, "xavier_normal")
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"layers.0.weight", "layers.0.bias", "layers.3.weight", "layers.3.bias"}
