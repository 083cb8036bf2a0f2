"""FusedKernel: an embedding kernel that updates its tables inside the backward pass, as this rank holds it.

A sharded collection keeps its kernels outside of the module tree, one for each (sharding type, rule,
learning rate, eps) and rank; they are reached through the model's fused optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer

from sharding.shards import table_name


@dataclass(frozen=True, kw_only=True)
class FusedKernel:
    """One kernel."""

    tables: tuple[str, ...]  # never empty
    optimizer: KeyedOptimizer
    module: nn.Module  # fbgemm's SplitTableBatchedEmbeddingBagsCodegen

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate, a float32 in the kernel, of the backward passes to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()  # TorchRec hands the group's rate to the kernel here, and not before

    def flush(self) -> None:
        """Writes what a cache on the GPU holds back to the weights in host memory; without a cache it does nothing."""
        cast(Any, self.module).flush()

    def drop_cache(self) -> None:
        """Forgets what a cache on the GPU holds, once weights in host memory were written from outside."""
        cast(Any, self.module).reset_cache_states()

    def count_only_training(self) -> None:
        """Keeps forwards without gradients, those of evaluations, out of the kernel's count of steps.

        Adam's bias correction is a function of that count, and the kernel adds one to it in every
        forward: without this, how often a run is evaluated would change its weights.
        """
        self._undo_count(where=lambda: not torch.is_grad_enabled())

    def freeze(self) -> None:
        """Ends the backward pass in front of the kernel: neither weights nor state change, whatever the rule.

        A gradient of zero would not do: Adam moves on by its momentum, and all its averages shrink.
        The output still takes a gradient, so that the exchange of gradients is met by every rank.
        """
        self.module.register_forward_hook(_cut)
        self._undo_count(where=lambda: True)

    def _undo_count(self, *, where: Callable[[], bool]) -> None:
        before: list[int] = []

        def remember(module: Any, _inputs: Any) -> None:
            before[:] = [int(module.iter_cpu)]

        def undo(module: Any, _inputs: Any, _output: Any) -> None:
            counted = int(module.iter_cpu) != before.pop()  # not every rule counts
            if counted and where():
                module.iter_cpu.sub_(1)  # what the rule reads
                module.iter.sub_(1)  # what a checkpoint holds

        self.module.register_forward_pre_hook(remember)
        self.module.register_forward_hook(undo)


def fused_kernels(model: DistributedModelParallel) -> list[FusedKernel]:
    """The kernels of this rank, in the same order every time; data-parallel tables have none."""
    return [_kernel(optimizer) for optimizer in _leaves(model.fused_optimizer) if optimizer.params]


def _leaves(optimizer: KeyedOptimizer) -> Iterator[KeyedOptimizer]:
    if isinstance(optimizer, CombinedOptimizer):
        for _, inner in optimizer.optimizers:
            yield from _leaves(inner)
    else:
        yield optimizer


def _kernel(optimizer: Any) -> FusedKernel:
    tables = tuple(dict.fromkeys(str(table_name(key)) for key in optimizer.params))
    return FusedKernel(tables=tables, optimizer=optimizer, module=optimizer._emb_module)


def _cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output.detach().requires_grad_(torch.is_grad_enabled())
