"""The first-order part: what it adds up, and what it has to learn."""

from __future__ import annotations

import pytest
import torch

from modules.layers.first_order import FirstOrder, first_order_cost


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_dense", [0, 2])
def test_it_is_the_sum_of_all_there_is(num_dense: int, bias: bool) -> None:
    part = FirstOrder(num_dense=num_dense, bias=bias)
    with torch.no_grad():
        for value, weight in zip((10.0, 100.0), part.parameters(), strict=False):
            weight.fill_(value)
    ids, dense = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [0.0, 5.0]])[:, :num_dense]
    added = {
        (0, False): [0, 0],
        (0, True): [10, 10],
        (2, False): [30, 50],
        (2, True): [10 + 300, 10 + 500],  # the bias is the first parameter
    }[(num_dense, bias)]
    assert part(dense, ids).tolist() == [3 + added[0], 7 + added[1]]
    assert first_order_cost(num_dense, bias=bias) == (sum(p.numel() for p in part.parameters()), num_dense)


def test_it_insists_on_weights_of_ids() -> None:
    with pytest.raises(AssertionError, match="first-order weights"):
        FirstOrder(num_dense=0, bias=True)(torch.zeros(2, 0), None)
