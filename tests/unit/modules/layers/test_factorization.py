"""The factorization term against TorchRec's and against all pairs written out."""

from __future__ import annotations

import pytest
import torch
from torchrec.modules.deepfm import FactorizationMachine

from modules.layers.factorization import factorization_term


@pytest.mark.parametrize("num_features", [1, 2, 7])
def test_it_is_the_sum_over_pairs(num_features: int) -> None:
    vectors = torch.randn(5, num_features, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.zeros(5, dtype=torch.float64)
    for j in range(num_features):
        for i in range(j):
            expected += (vectors[:, i] * vectors[:, j]).sum(dim=1)
    torch.testing.assert_close(factorization_term(vectors), expected)


def test_it_is_torchrecs_column_by_column() -> None:
    """TorchRec's sums over the flattened input, so it is the pairwise term of one column at a time."""
    vectors = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0))
    theirs = sum(FactorizationMachine()([vectors[:, :, column : column + 1]]).squeeze(1) for column in range(4))
    torch.testing.assert_close(factorization_term(vectors), theirs, rtol=1e-5, atol=1e-5)
