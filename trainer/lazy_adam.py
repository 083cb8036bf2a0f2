"""LazyAdam: Adam of a whole embedding table as the fused kernels have it, for tables that they do not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LazyAdam(Optimizer):
    """Adam (Kingma and Ba, 2015, algorithm 1) that leaves alone each row without a gradient.

    Plain Adam moves every row at every step by its momentum, rows that no batch has included. The
    kernels that update a sharded table know only the rows of the batch; a table must not learn
    otherwise because a plan replicates it. Steps are counted for the table as a whole, as there. On
    rows that every batch has it equals `torch.optim.Adam`.

    A row of the batch whose gradient is zero in every column counts as not there.

    Args:
        params: Tables, [rows, dim], with dense gradients.
        lr: Learning rate.
        betas: What the averages of gradient and squared gradient keep of themselves at each step.
        eps: Added to the denominator.
        weight_decay: L2 penalty: this times the weights joins the gradient, and so every row has one.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for group in self.param_groups:
            for table in group["params"]:
                # An integer as in a kernel, and on the CPU, where reading it makes no device wait.
                self.state[table]["step"] = torch.tensor(0)
                self.state[table]["exp_avg"] = torch.zeros_like(table)
                self.state[table]["exp_avg_sq"] = torch.zeros_like(table)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update from the tables' gradients."""
        assert closure is None, "nothing here evaluates the model again"
        for group in self.param_groups:
            for table in group["params"]:
                self._step_table(table, **{key: group[key] for key in ("lr", "betas", "eps", "weight_decay")})

    def _step_table(
        self, table: Tensor, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        state = self.state[table]
        state["step"] += 1
        if table.grad is None:
            return
        whole = table.grad.add(table, alpha=weight_decay) if weight_decay else table.grad
        rows = whole.any(dim=1).nonzero().squeeze(1)
        gradient = whole[rows]
        mean = state["exp_avg"][rows].lerp_(gradient, 1 - betas[0])
        square = state["exp_avg_sq"][rows].mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        num_steps = state["step"].item()
        mean_bias, square_bias = 1 - betas[0] ** num_steps, 1 - betas[1] ** num_steps
        table[rows] -= (lr / mean_bias) * mean / ((square / square_bias).sqrt() + eps)
