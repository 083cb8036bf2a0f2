"""LazyAdam: torch's Adam on the rows with a gradient, nothing on the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.lazy_adam import LazyAdam

ROWS, DIM = 7, 4


def gradients(num_steps: int) -> torch.Tensor:
    return torch.randn(num_steps, ROWS, DIM, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
def test_with_every_row_in_every_batch_it_is_adam(eps: float) -> None:
    lazy, plain = nn.Parameter(torch.ones(ROWS, DIM)), nn.Parameter(torch.ones(ROWS, DIM))
    one, other = LazyAdam([lazy], lr=0.1, eps=eps), torch.optim.Adam([plain], lr=0.1, eps=eps)
    for step, gradient in enumerate(gradients(6)):
        for table, rule in ((lazy, one), (plain, other)):
            rule.param_groups[0]["lr"] = 0.1 / (1 + step)
            table.grad = gradient.clone()
            rule.step()
    torch.testing.assert_close(lazy.detach(), plain.detach(), rtol=1e-5, atol=1e-7)
    assert one.state[lazy]["step"].item() == other.state[plain]["step"].item() == 6
    for key in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(one.state[lazy][key], other.state[plain][key])


def test_a_row_without_a_gradient_stays_and_the_table_counts_on() -> None:
    table = nn.Parameter(torch.ones(ROWS, DIM))
    rule = LazyAdam([table], lr=0.1, eps=1e-8)
    seen = [0, 1]
    found = {}
    for step, gradient in enumerate(gradients(3)):
        rows = [0, 1, 2] if step == 0 else seen
        table.grad = torch.zeros(ROWS, DIM)
        table.grad[rows] = gradient[rows]
        rule.step()
        found[step] = {key: rule.state[table][key].clone() for key in ("exp_avg", "exp_avg_sq")} | {
            "weight": table.detach().clone()
        }
    for key, value in found[2].items():
        assert torch.equal(value[2:], found[0][key][2:])  # row 2 has momentum, and keeps it
        assert not torch.equal(value[:2], found[0][key][:2])
    assert found[0]["exp_avg"][2].all() and torch.equal(found[2]["weight"][3:], torch.ones(ROWS - 3, DIM))
    assert rule.state[table]["step"].item() == 3


def test_no_gradient_at_all_is_a_step_in_which_no_row_is() -> None:
    table = nn.Parameter(torch.ones(ROWS, DIM))
    rule = LazyAdam([table], lr=0.1, eps=1e-8)
    rule.step()
    assert torch.equal(table.detach(), torch.ones(ROWS, DIM))
    assert rule.state[table]["step"].item() == 1


def test_with_a_penalty_every_row_moves_as_under_adam() -> None:
    lazy, plain = nn.Parameter(torch.ones(ROWS, DIM)), nn.Parameter(torch.ones(ROWS, DIM))
    one = LazyAdam([lazy], lr=0.1, eps=1e-8, weight_decay=0.3)
    other = torch.optim.Adam([plain], lr=0.1, eps=1e-8, weight_decay=0.3)
    for gradient in gradients(5):
        gradient[2:] = 0.0
        for table, rule in ((lazy, one), (plain, other)):
            table.grad = gradient.clone()
            rule.step()
    torch.testing.assert_close(lazy.detach(), plain.detach(), rtol=1e-5, atol=1e-7)
    assert not torch.equal(lazy.detach()[2:], torch.ones(ROWS - 2, DIM))
