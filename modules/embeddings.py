"""EmbeddingTower: pooled embeddings of one table group, always read by key.

The order of columns in a KeyedTensor follows the sharding plan, so a read by position would give
other results under another plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class EmbeddingTower(nn.Module):
    """Stacks one group's pooled embeddings to [B, F, D] in feature order.

    Args:
        keys: The collection's output keys, in feature order.
    """

    def __init__(self, *, keys: Sequence[str]) -> None:
        super().__init__()
        self.keys = tuple(keys)

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        """`pooled` maps a key to [B, D]; gives [B, F, D]."""
        return torch.stack([pooled[key] for key in self.keys], dim=1)
