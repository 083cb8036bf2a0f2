"""Optimizers: every parameter under exactly one rule, whatever the plan.

Sharded tables update inside the backward pass. TorchRec leaves data-parallel tables out of that,
silently, so here they get the same rule through an optimizer that steps after the backward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from configs.schema import Dense
from modules.tables import TableSpec
from sharding.dense_gradients import DenseGradients
from sharding.shards import table_name
from trainer.runtime import Runtime

_RULES: Mapping[str, Callable[..., Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
# Adam's state is made by its first step; to load a checkpoint before that, it is made here.
_LAZY_STATE: Mapping[str, tuple[str, ...]] = {"adam": ("exp_avg", "exp_avg_sq")}
_MEMBER_PATH = "ensemble.bank.members."


def _arguments(rule: str, *, lr: float, eps: float) -> dict[str, float]:
    return {"lr": lr} if rule == "sgd" else {"lr": lr, "eps": eps}


def update_tables_in_backward(module: nn.Module, specs: Sequence[TableSpec]) -> None:
    """Declares every table's rule on the unsharded module; call it before planning."""
    by_name = {spec.name: spec for spec in specs}
    for name, parameter in module.named_parameters():
        table = table_name(name)
        if table is not None:
            spec = by_name[table]
            # A fresh dict each time: sharding writes into it.
            arguments: dict[str, Any] = _arguments(spec.optimizer, lr=spec.lr, eps=spec.eps)
            apply_optimizer_in_backward(_RULES[spec.optimizer], [parameter], arguments)


def member_of(parameter_name: str) -> str | None:
    """The member a dense parameter belongs to, None for a table."""
    if not parameter_name.startswith(_MEMBER_PATH):
        return None
    return parameter_name.removeprefix(_MEMBER_PATH).partition(".")[0]


class TaskOptimizer:
    """Steps what the backward pass does not: dense parameters and data-parallel tables.

    It has the two methods that the training pipelines call.

    Args:
        model: The sharded task.
        specs: All tables.
        dense: The dense optimizer's section.
        dense_lrs: Member name -> its dense learning rate.
        runtime: The ranks to average dense gradients over.
    """

    def __init__(
        self,
        model: DistributedModelParallel,
        *,
        specs: Sequence[TableSpec],
        dense: Dense,
        dense_lrs: Mapping[str, float],
        runtime: Runtime,
    ) -> None:
        self._model = model
        self._specs = {spec.name: spec for spec in specs}
        self._fused_names = set(model.fused_optimizer.params)
        parameters = {name: p for name, p in model.named_parameters() if p.numel()}
        dense_parameters: dict[str, dict[str, nn.Parameter]] = {member: {} for member in dense_lrs}
        self._by_parameter: dict[str, Optimizer] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        for name, parameter in parameters.items():
            member, table = member_of(name), table_name(name)
            if member is not None:
                dense_parameters[member][name] = parameter
            elif table is not None and name not in self._fused_names:
                spec = self._specs[table]
                self._adopt(spec.optimizer, {name: parameter}, lr=spec.lr, eps=spec.eps)
        for member, own in dense_parameters.items():
            if own:
                self._adopt(dense.optimizer, own, lr=dense_lrs[member], eps=dense.eps)
        self._optimizers = list(dict.fromkeys(self._by_parameter.values()))
        self._gradients = DenseGradients(
            {member: list(own.values()) for member, own in dense_parameters.items() if own},
            process_group=runtime.group,
        )
        self.mark: Callable[[str], None] = lambda _event: None
        _check_owners(parameters, owners=[*self._fused_names, *self._by_parameter])

    def _adopt(self, rule: str, parameters: Mapping[str, nn.Parameter], *, lr: float, eps: float) -> None:
        optimizer = _RULES[rule](list(parameters.values()), **_arguments(rule, lr=lr, eps=eps))
        for parameter in parameters.values():
            for state in _LAZY_STATE.get(rule, ()):
                optimizer.state[parameter].setdefault("step", torch.tensor(0.0))
                optimizer.state[parameter][state] = torch.zeros_like(parameter)
        for name, parameter in parameters.items():
            self._by_parameter[name] = optimizer
            self._parameters[name] = parameter

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of what this optimizer steps."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Averages dense gradients over ranks and steps. All ranks must call this."""
        self.mark("backward_done")
        self._gradients.average()
        self.mark("reduced")
        for optimizer in self._optimizers:
            optimizer.step()
        self.mark("stepped")

    def owners(self) -> dict[str, str]:
        """Parameter name -> the rule that updates it and where: `fused RULE` or `dense RULE`."""
        fused = {name: f"fused {self._specs[str(table_name(name))].optimizer}" for name in self._fused_names}
        return fused | {name: f"dense {type(opt).__name__}" for name, opt in self._by_parameter.items()}

    def state_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every state as (key, live tensor), under keys that no plan changes.

        A table's sum of squared gradients is `tables/TABLE/sum`, [rows] under row-wise Adagrad and
        [rows, dim] under Adagrad; a dense parameter's states are `dense/PARAMETER/STATE`.
        """
        for key, states in self._model.fused_optimizer.state_dict()["state"].items():
            for value in states.values():
                yield f"tables/{table_name(key)}/sum", value
        for name, optimizer in self._by_parameter.items():
            parameter, table = self._parameters[name], table_name(name)
            for state, value in optimizer.state[parameter].items():
                if table is None:
                    yield f"dense/{name}/{state}", value
                elif state == "sum":
                    row_wise = self._specs[table].optimizer == "rowwise_adagrad"
                    yield f"tables/{table}/sum", value.view(-1) if row_wise else value


def _check_owners(parameters: Mapping[str, nn.Parameter], *, owners: Sequence[str]) -> None:
    count = Counter(owners)
    wrong = {name: count[name] for name in parameters if count[name] != 1}
    assert not wrong, f"parameters that are not under exactly one optimizer: {wrong}"
