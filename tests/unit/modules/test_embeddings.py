"""EmbeddingTower: features in its own order, found by key."""

from __future__ import annotations

import pytest
import torch

from modules.embeddings import EmbeddingTower


def test_features_come_by_key_in_the_towers_order() -> None:
    pooled = {key: torch.full((2, 3), float(value)) for value, key in enumerate(("C2@a/C2", "C1", "C3"))}
    stacked = EmbeddingTower(keys=["C1", "C2@a/C2"])(pooled)
    assert stacked.shape == (2, 2, 3)
    assert stacked[:, :, 0].tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_a_missing_key_is_not_passed_over() -> None:
    with pytest.raises(KeyError, match="C9"):
        EmbeddingTower(keys=["C9"])({"C1": torch.zeros(1, 1)})
