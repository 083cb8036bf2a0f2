"""How a member's linear layers start, where not as PyTorch's do."""

from __future__ import annotations

from torch import nn


def start_as(member: nn.Module, init: str) -> None:
    """Draws the weights of every Linear again; runs under the member's seed.

    Args:
        member: Just built.
        init: pytorch: as it was built; xavier_normal: weights of variance 2 / (fan in + fan out) and zero biases
            (Glorot and Bengio, AISTATS 2010), as FuxiCTR starts its models.
    """
    if init == "pytorch":
        return
    assert init == "xavier_normal", init
    for layer in member.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
