"""Ensemble: the tables and the members on top of them; one batch gives a logit per member."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from modules.contracts import MemberInput, over_heads
from modules.embeddings import EmbeddingTower
from modules.layers.batch_norm import BatchNorm
from modules.layers.dropout import Dropout
from modules.layers.feature_dropout import FeatureDropout
from modules.member_fields import MemberFields
from modules.seeding import derive_seed
from modules.stacked_members import StackedMembers
from modules.tables import FIRST_ORDER_SUFFIX, output_keys


@dataclass(frozen=True, kw_only=True)
class MemberView:
    """What one member sees, and the seed of its randomness."""

    tower: EmbeddingTower | None  # None: it reads no embeddings
    first_order: EmbeddingTower | None
    groups: tuple[str, ...]  # of those
    reads_dense: bool
    seed: int


class MemberBank(nn.Module):
    """All members over the pooled embeddings of their groups.

    It holds no sharded module, so the training pipeline's tracer takes it as one leaf.

    Args:
        members: Name -> member.
        views: Member name -> what it sees.
        feature_dropout: Member name -> probability with which it does not see a feature of a row in training.
        precision: fp32, or bf16: members compute in bfloat16 where autocast does, on fp32 weights; logits are fp32.
        frozen: Members that are not trained, nor the tables they read.
        stacks: Members of one architecture and one shape of input that are computed as one, for each stack their names.
    """

    def __init__(
        self,
        *,
        members: Mapping[str, nn.Module],
        views: Mapping[str, MemberView],
        feature_dropout: Mapping[str, float] | None = None,
        precision: str = "fp32",
        frozen: Collection[str] = (),
        stacks: Sequence[Sequence[str]] = (),
    ) -> None:
        super().__init__()
        assert precision in ("fp32", "bf16"), precision
        self._precision = precision
        self.members = nn.ModuleDict(members)
        self.hiding = nn.ModuleDict({name: FeatureDropout(p) for name, p in (feature_dropout or {}).items() if p > 0})
        self._views = dict(views)
        self._frozen = frozenset(frozen)
        self._stopped: frozenset[str] = frozenset()
        self._skipped: frozenset[str] = frozenset()
        self.frozen_groups = frozenset(group for name in self._frozen for group in views[name].groups)
        self._dropouts = [
            (derive_seed(views[name].seed, path), layer)
            for modules in (self.members, self.hiding)
            for name, module in modules.items()
            for path, layer in module.named_modules()
            if isinstance(layer, Dropout) and layer.probability > 0
        ]
        self._batch_norms = [layer for layer in self.members.modules() if isinstance(layer, BatchNorm)]
        assert self._frozen.isdisjoint(name for names in stacks for name in names), "a frozen member is computed alone"
        self._stacks = [StackedMembers({name: members[name] for name in names}) for names in stacks]
        self._stack_of = {name: stack for stack in self._stacks for name in stack.names}
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; frozen members stay in evaluation mode, and so without dropout."""
        super().train(mode)
        for name in self._frozen:
            self.members[name].eval()
            if name in self.hiding:
                self.hiding[name].eval()
        return self

    def stop(self, names: Collection[str]) -> None:
        """Leaves these members, and no others, out of the training steps to come: their logits are then 0.

        In evaluation they are there as before.
        """
        self._stopped = frozenset(names)

    def skip(self, names: Collection[str]) -> None:
        """Leaves these members, and no others, out of the evaluations to come: their logits are then 0."""
        self._skipped = frozenset(names)

    def begin_step(self, *, step: int, rank: int, num_rows: int | None = None) -> None:
        """Seeds every dropout layer from (member seed, layer, step, rank) alone, and says which rows only pad.

        Args:
            step: The step about to be taken.
            rank: This rank.
            num_rows: How many rows of this rank's batch are real, the first ones; None: all.
        """
        for seed, layer in self._dropouts:
            layer.reseed(derive_seed(seed, step, rank))
        for norm in self._batch_norms:
            norm.set_rows(num_rows)
        for stack in self._stacks:
            stack.set_rows(num_rows)

    def forward(self, dense_BN: Tensor, pooled: KeyedTensor) -> list[Tensor]:
        """One logit tensor per member, in member order: [B], in training [B, H] of a member with several heads.

        Those of frozen members carry no gradient.
        """
        by_key = pooled.to_dict()
        stacked: dict[tuple[str, ...], Tensor] = {}
        stopped = self._stopped if self.training else self._skipped
        logits: dict[str, Tensor] = {}

        def seen(name: str) -> MemberInput:
            inputs = self._inputs(self._views[name], dense_BN, by_key=by_key, stacked=stacked)
            return self.hiding[name](inputs) if name in self.hiding and name not in stopped else inputs

        for name in self.members:
            if name in stopped:
                logits[name] = _nothing(seen(name))
            elif name not in logits:  # else it came with its stack
                logits |= self._logits(name, seen, stopped=stopped)
        return [logits[name] for name in self.members]

    def _logits(self, name: str, seen: Callable[[str], MemberInput], *, stopped: Collection[str]) -> dict[str, Tensor]:
        """The logits of a member, with those of its stack where that has several that go on."""
        names = [name]
        if name in self._stack_of:
            names = [other for other in self._stack_of[name].names if other not in stopped]
        inputs = {other: seen(other) for other in names}
        with torch.set_grad_enabled(torch.is_grad_enabled() and name not in self._frozen), self._autocast(inputs[name]):
            if len(names) == 1:
                return {name: self.members[name](inputs[name]).float()}
            return {other: logit.float() for other, logit in self._stack_of[name](inputs).items()}

    def _autocast(self, inputs: MemberInput) -> torch.autocast:
        return torch.autocast(inputs.dense_BN.device.type, torch.bfloat16, enabled=self._precision == "bf16")

    def _inputs(
        self,
        view: MemberView,
        dense_BN: Tensor,
        *,
        by_key: Mapping[str, Tensor],
        stacked: dict[tuple[str, ...], Tensor],
    ) -> MemberInput:
        """What a member sees; embeddings that several see are stacked once."""
        for tower in (view.tower, view.first_order):
            if tower is not None and tower.keys not in stacked:
                is_frozen = not self.frozen_groups.isdisjoint(view.groups)
                stacked[tower.keys] = tower(by_key).detach() if is_frozen else tower(by_key)
        first_order_BF = None if view.first_order is None else stacked[view.first_order.keys][:, :, 0]
        if view.tower is not None:
            embedded_BFD = stacked[view.tower.keys]
        else:
            assert first_order_BF is not None, "a member reads embeddings, weights per id, or both"
            embedded_BFD = first_order_BF.unsqueeze(2)[:, :, :0]
        return MemberInput(dense_BN if view.reads_dense else dense_BN[:, :0], embedded_BFD, first_order_BF)


def _nothing(inputs: MemberInput) -> Tensor:
    """Logits of 0 that pass a gradient of 0 on to the tables, so that its exchange is met by every rank."""
    read = [value for value in inputs[1:] if value is not None]
    return sum((value.flatten(1) * 0.0).sum(dim=1) for value in read)  # type: ignore[return-value]


class Ensemble(nn.Module):
    """Members on one collection of embedding tables.

    Args:
        tables: The collection of all groups' tables.
        members: Name -> member, in the order of the logits.
        groups: Member name -> its table group.
        seeds: Member name -> seed of its dropout.
        fields: Member name -> what it reads of a row; not given: all dense features and all of its group's tables.
        feature_dropout: Member name -> probability with which it does not see a feature of a row in training.
        precision: fp32, or bf16: members compute in bfloat16 where autocast does, on fp32 weights; logits are fp32.
        frozen: Members that are not trained, nor the tables they read: no gradient reaches either. A
            member that reads the same tables and is not named learns on top of them.
        stacks: Members of one architecture and one shape of input that are computed as one, for each stack their names;
            the results differ by rounding.
    """

    def __init__(
        self,
        *,
        tables: EmbeddingBagCollection,
        members: Mapping[str, nn.Module],
        groups: Mapping[str, str],
        seeds: Mapping[str, int],
        fields: Mapping[str, MemberFields] | None = None,
        feature_dropout: Mapping[str, float] | None = None,
        precision: str = "fp32",
        frozen: Collection[str] = (),
        stacks: Sequence[Sequence[str]] = (),
    ) -> None:
        super().__init__()
        keys = output_keys(tables)
        views = {
            name: _view(
                groups[name],
                keys=keys,
                fields=(fields or {}).get(name),
                first_order=bool(member.first_order),
                seed=seeds[name],
            )
            for name, member in members.items()
        }
        self.tables = tables
        self.bank = MemberBank(
            members=members,
            views=views,
            feature_dropout=feature_dropout,
            precision=precision,
            frozen=frozen,
            stacks=stacks,
        )

    @property
    def frozen_groups(self) -> frozenset[str]:
        """Table groups that are not trained: those of frozen members, with the names of their first-order groups."""
        return self.bank.frozen_groups

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return tuple(self.bank.members)

    def forward(self, dense_BN: Tensor, sparse: KeyedJaggedTensor) -> list[Tensor]:
        """Dense features [B, N] and id bags of B rows; gives one logit tensor per member, as `MemberBank` does."""
        return self.bank(dense_BN, self.tables(sparse))


def _view(
    group: str, *, keys: Mapping[str, Mapping[str, str]], fields: MemberFields | None, first_order: bool, seed: int
) -> MemberView:
    def tower(of: str) -> EmbeddingTower | None:
        if of not in keys:
            return None
        features = keys[of] if fields is None else fields.features
        return EmbeddingTower(keys=[keys[of][feature] for feature in features])

    weights = group + FIRST_ORDER_SUFFIX
    return MemberView(
        tower=None if fields is not None and not fields.embedded else tower(group),
        first_order=tower(weights) if first_order else None,
        groups=(group, weights),
        reads_dense=fields is None or fields.numeric in ("dense", "scaled"),
        seed=seed,
    )


def stack_logits(logits: list[Tensor]) -> Tensor:
    """Member logits side by side, of several heads the mean, detached, float32 [B, M]."""
    return torch.stack([over_heads(logit.detach()) for logit in logits], dim=1).float()
