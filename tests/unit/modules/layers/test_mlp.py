"""The multi-layer perceptron: its layers in order, and its width."""

from __future__ import annotations

import torch
from torch import nn

from modules.layers.dropout import Dropout
from modules.layers.mlp import MLP


def test_the_layers_come_in_order() -> None:
    layers = MLP(in_features=5, hidden=(4, 3), out_features=2, dropout=0.1).layers
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, Dropout] * 2 + [nn.Linear]
    assert [(x.in_features, x.out_features) for x in layers if isinstance(x, nn.Linear)] == [(5, 4), (4, 3), (3, 2)]
    assert not [x for x in MLP(in_features=5, hidden=(4,)).layers if isinstance(x, Dropout)]


def test_the_width_is_that_of_the_last_layer() -> None:
    assert MLP(in_features=5, hidden=(4, 3)).out_features == 3
    assert MLP(in_features=5, hidden=(4, 3), out_features=2).out_features == 2
    assert MLP(in_features=5, hidden=()).out_features == 5


def test_a_hidden_layer_comes_last_where_no_output_is_asked_for() -> None:
    values = MLP(in_features=5, hidden=(64,))(torch.randn(20, 5))
    assert (values >= 0).all()
    assert (values == 0).any()
