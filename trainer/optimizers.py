"""Optimizers: every parameter under exactly one rule, whatever the plan.

Sharded tables update inside the backward pass. TorchRec leaves data-parallel tables out of that,
silently, so here they get the same rule through an optimizer that steps after the backward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from configs.schema import RunConfig
from configs.training_schema import Dense
from modules.tables import FIRST_ORDER_SUFFIX, TableSpec
from sharding.dense_gradients import DenseGradients
from sharding.fused_kernels import FusedKernel, fused_kernels
from sharding.shards import table_name
from trainer.lazy_adam import LazyAdam
from trainer.runtime import Runtime
from trainer.table_state import fused_state_tensors

_RULES: Mapping[str, Callable[..., Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "dense_adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
# What steps a data-parallel table; the kernels' Adam leaves alone the rows that a batch has not.
_REPLICATED_RULES: Mapping[str, Callable[..., Optimizer]] = {**_RULES, "adam": LazyAdam}
# Adam's state is made by its first step; to load a checkpoint before that, it is made here.
_LAZY_STATE: Mapping[str, tuple[str, ...]] = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "dense_adam": ("exp_avg", "exp_avg_sq"),
}
_TABLE_STATES: Mapping[str, tuple[str, ...]] = {
    "rowwise_adagrad": ("sum",),
    "adagrad": ("sum",),
    "adam": ("exp_avg", "exp_avg_sq", "step"),
    "dense_adam": ("exp_avg", "exp_avg_sq", "step"),
    "sgd": (),
}
_MEMBER_PATH = "ensemble.bank.members."


def _arguments(rule: str, *, lr: float, eps: float, l2: float = 0.0) -> dict[str, float]:
    penalty = {"weight_decay": l2} if l2 else {}  # all of these rules add l2 times the weights to the gradient
    return {"lr": lr, **penalty} if rule == "sgd" else {"lr": lr, "eps": eps, **penalty}


def update_tables_in_backward(
    module: nn.Module, specs: Sequence[TableSpec], *, frozen_groups: Collection[str] = ()
) -> None:
    """Declares every table's rule on the unsharded module; call it before planning.

    Args:
        module: The unsharded task.
        specs: All tables.
        frozen_groups: Table groups that are not trained, first-order groups by their own names.
    """
    by_name = {spec.name: spec for spec in specs}
    for name, parameter in module.named_parameters():
        table = table_name(name)
        if table is not None:
            spec = by_name[table]
            lr = _base_lr(spec, frozen_groups)
            # A fresh dict each time: sharding writes into it.
            arguments: dict[str, Any] = _arguments(spec.optimizer, lr=lr, eps=spec.eps)
            apply_optimizer_in_backward(_RULES[spec.optimizer], [parameter], arguments)


def _base_lr(spec: TableSpec, frozen_groups: Collection[str]) -> float:
    # TorchRec puts tables of one rate into one kernel; 0 gives the frozen ones kernels of their own.
    return 0.0 if spec.group in frozen_groups else spec.lr


def member_of(parameter_name: str) -> str | None:
    """The member a dense parameter belongs to, None for a table."""
    if not parameter_name.startswith(_MEMBER_PATH):
        return None
    return parameter_name.removeprefix(_MEMBER_PATH).partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class MemberRule:
    """How one member's dense parameters are trained."""

    optimizer: str
    lr: float
    group: str  # its table group
    clip_norm: float | None = None  # greatest L2 norm of the gradient; None: no bound
    frozen: bool = False  # never stepped; the state is there all the same


def member_rules(config: RunConfig, *, groups: Mapping[str, str]) -> dict[str, MemberRule]:
    """Member name -> how a run trains its dense parameters.

    Args:
        config: The run.
        groups: Member name -> its table group.
    """
    return {
        name: MemberRule(
            optimizer=member.optimizer or config.dense.optimizer,
            lr=member.lr or config.dense.lr,
            group=groups[name],
            clip_norm=member.clip_norm or config.dense.clip_norm,
            frozen=member.freeze,
        )
        for name, member in config.expanded_members()
    }


@dataclass(frozen=True, kw_only=True)
class _Stepped:
    """An optimizer that `TaskOptimizer.step` steps."""

    optimizer: Optimizer
    lr: float  # as configured
    group: str  # the table group that it belongs to


class TaskOptimizer:
    """Steps what the backward pass does not, and sets the learning rate of all.

    Dense parameters and data-parallel tables are stepped here. `zero_grad` and `step` are the two
    methods that the training pipelines call.

    Args:
        model: The sharded task, its tables' rules declared with the same `frozen_groups`.
        specs: All tables.
        dense: The dense optimizer's section: eps and l2 of every member's rule.
        members: Member name -> how its dense parameters are trained.
        frozen_groups: Table groups that are not trained, first-order groups by their own names.
            Neither their weights nor their optimizer state change, whatever the rule.
        runtime: The ranks to average dense gradients over.
    """

    def __init__(
        self,
        model: DistributedModelParallel,
        *,
        specs: Sequence[TableSpec],
        dense: Dense,
        members: Mapping[str, MemberRule],
        frozen_groups: Collection[str] = (),
        runtime: Runtime,
    ) -> None:
        self._model = model
        self._specs = {spec.name: spec for spec in specs}
        self._members = dict(members)
        self._fused_names = set(model.fused_optimizer.params)
        self._by_parameter: dict[str, Optimizer] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._stepped: list[_Stepped] = []
        self._clipped: dict[str, tuple[float, list[nn.Parameter]]] = {}  # table group -> norm, its tables
        self._stopped: frozenset[str] = frozenset()
        self._factors: tuple[float, dict[str, float]] = (1.0, {})
        self.mark: Callable[[str], None] = lambda _event: None
        parameters = {name: p for name, p in model.named_parameters() if p.numel()}
        dense_parameters: dict[str, dict[str, nn.Parameter]] = {member: {} for member in members}
        for name, parameter in parameters.items():
            member, table = member_of(name), table_name(name)
            if member is not None:
                dense_parameters[member][name] = parameter
            elif table is not None and name not in self._fused_names:
                spec = self._specs[table]
                arguments = _arguments(spec.optimizer, lr=spec.lr, eps=spec.eps, l2=spec.l2)
                rule = _REPLICATED_RULES[spec.optimizer]([parameter], **arguments)
                if spec.optimizer == "dense_adam":
                    _make_state(rule, spec.optimizer)
                if spec.clip_norm is not None and spec.group not in frozen_groups:
                    self._clipped.setdefault(_group(spec), (spec.clip_norm, []))[1].append(parameter)
                self._adopt(rule, {name: parameter}, group=_group(spec), frozen=spec.group in frozen_groups)
        for member, own in dense_parameters.items():
            if own:
                how = members[member]
                arguments = _arguments(how.optimizer, lr=how.lr, eps=dense.eps, l2=dense.l2)
                rule = _RULES[how.optimizer](list(own.values()), **arguments)
                _make_state(rule, how.optimizer)
                self._adopt(rule, own, group=how.group, frozen=how.frozen)
        self._optimizers = list(dict.fromkeys(self._by_parameter.values()))
        self._kernels = self._adopt_kernels(frozen_groups)
        trained = {member: own for member, own in dense_parameters.items() if own and not members[member].frozen}
        self._gradients = DenseGradients(
            {member: list(own.values()) for member, own in trained.items()},
            statistics=_running_statistics(model, members=trained),
            process_group=runtime.group,
            clip_norms={member: members[member].clip_norm for member in trained},
        )
        _check_owners(parameters, owners=[*self._fused_names, *self._by_parameter])

    def _adopt(self, optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], *, group: str, frozen: bool) -> None:
        for name, parameter in parameters.items():
            self._by_parameter[name] = optimizer
            self._parameters[name] = parameter
        if not frozen:
            self._stepped.append(_Stepped(optimizer=optimizer, lr=optimizer.param_groups[0]["lr"], group=group))

    def _adopt_kernels(self, frozen_groups: Collection[str]) -> list[tuple[FusedKernel, float, frozenset[str]]]:
        """This rank's kernels that train, each with the learning rate and the groups of its tables."""
        trained = []
        for kernel in fused_kernels(self._model):
            specs = [self._specs[table] for table in kernel.tables]
            (lr,) = {_base_lr(spec, frozen_groups) for spec in specs}
            if lr == 0.0:
                kernel.freeze()
            else:
                kernel.count_only_training()
                trained.append((kernel, lr, frozenset(_group(spec) for spec in specs)))
        return trained

    def mixed_kernel(self) -> frozenset[str]:
        """Table groups that one kernel of this rank updates at one rate, where there are several; else empty."""
        return next((groups for _, _, groups in self._kernels if len(groups) > 1), frozenset())

    def drifting_tables(self) -> tuple[str, ...]:
        """Tables of this rank that a gradient of zero moves all the same: those under the kernels' Adam."""
        tables = (table for kernel, _, _ in self._kernels for table in kernel.tables)
        return tuple(table for table in tables if self._specs[table].optimizer == "adam")

    def set_lr_factor(self, factor: float, *, by_group: Mapping[str, float] | None = None) -> None:
        """Sets every learning rate to `factor` times the configured one.

        It counts from the next backward pass on, which is where sharded tables are updated: call it
        before the pass of the step that it is meant for, which a pipeline makes in `progress`.

        Args:
            factor: For all.
            by_group: Table group -> a further factor for its tables and members; not there: 1. Groups that share a
                kernel (`mixed_kernel`) must have one.
        """
        factors = (factor, dict(by_group or {}))
        if factors == self._factors:
            return
        self._factors = factors
        more = factors[1]
        for stepped in self._stepped:
            for param_group in stepped.optimizer.param_groups:
                param_group["lr"] = stepped.lr * factor * more.get(stepped.group, 1.0)
        for kernel, lr, groups in self._kernels:
            (of_kernel,) = {more.get(group, 1.0) for group in groups}
            kernel.set_lr(lr * factor * of_kernel)

    def stop(self, groups: Collection[str]) -> None:
        """Leaves the tables and members of these groups, and of no others, as they are from now on.

        Sharded tables are not stepped here: what keeps them is that a stopped member's gradient is zero, which moves
        nothing under every rule but the kernels' Adam.
        """
        self._stopped = frozenset(groups)
        self._gradients.leave_out({name for name, how in self._members.items() if how.group in self._stopped})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all that the backward pass leaves."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Averages dense gradients over ranks, clips by member and table group, and steps. All ranks must call this."""
        self.mark("backward_done")
        self._gradients.average()
        self.mark("reduced")
        self._gradients.clip()
        for group, (norm, tables) in self._clipped.items():
            if group not in self._stopped:
                nn.utils.clip_grad_norm_(tables, norm)
        for stepped in self._stepped:
            if stepped.group not in self._stopped:
                stepped.optimizer.step()
        self.mark("stepped")

    def owners(self) -> dict[str, str]:
        """Parameter name -> the rule that updates it and where: `fused RULE` or `dense RULE`."""
        fused = {name: f"fused {self._specs[str(table_name(name))].optimizer}" for name in self._fused_names}
        return fused | {name: f"dense {type(opt).__name__}" for name, opt in self._by_parameter.items()}

    def state_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every state as (key, live tensor), under keys that no plan changes.

        A table's sum of squared gradients is `tables/TABLE/sum`, [rows] under row-wise Adagrad and
        [rows, dim] under Adagrad; under Adam its states are `tables/TABLE/exp_avg` and
        `tables/TABLE/exp_avg_sq`, [rows, dim], and `tables/TABLE/step`, []. A dense parameter's states
        are `dense/PARAMETER/STATE`. Frozen tables and members have theirs too.
        """
        yield from fused_state_tensors(self._model, list(self._specs.values()))
        for name, optimizer in self._by_parameter.items():
            parameter, table = self._parameters[name], table_name(name)
            states = optimizer.state[parameter]
            if table is None:
                yield from ((f"dense/{name}/{state}", value) for state, value in states.items())
                continue
            rule = self._specs[table].optimizer
            for state in _TABLE_STATES[rule]:
                # A kernel's sums of rows are [rows], this rule's [rows, 1].
                yield f"tables/{table}/{state}", states[state].view(-1) if rule == "rowwise_adagrad" else states[state]


def _group(spec: TableSpec) -> str:
    return spec.group.removesuffix(FIRST_ORDER_SUFFIX)


def _running_statistics(model: nn.Module, *, members: Collection[str]) -> dict[str, list[Tensor]]:
    """Member -> the running statistics of its batch norms, which are averaged over ranks with the gradients."""
    found: dict[str, list[Tensor]] = {member: [] for member in members}
    for name, buffer in model.named_buffers():
        member = member_of(name)
        if member in found and name.rpartition(".")[2] in ("running_mean", "running_var"):
            found[member].append(buffer)
    return found


def _make_state(optimizer: Optimizer, rule: str) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for state in _LAZY_STATE.get(rule, ()):
                optimizer.state[parameter].setdefault("step", torch.tensor(0.0))
                optimizer.state[parameter][state] = torch.zeros_like(parameter)


def _check_owners(parameters: Mapping[str, nn.Parameter], *, owners: Sequence[str]) -> None:
    count = Counter(owners)
    wrong = {name: count[name] for name in parameters if count[name] != 1}
    assert not wrong, f"parameters that are not under exactly one optimizer: {wrong}"
