"""Ensemble: the tables and the members on top of them; one batch gives a logit per member."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from modules.contracts import MemberInput
from modules.embeddings import EmbeddingTower
from modules.layers.dropout import Dropout
from modules.seeding import derive_seed
from modules.tables import FIRST_ORDER_SUFFIX, output_keys


class MemberBank(nn.Module):
    """All members over the pooled embeddings of their groups.

    It holds no sharded module, so the training pipeline's tracer takes it as one leaf.

    Args:
        towers: Group -> tower, first-order groups included.
        members: Name -> member.
        groups: Member name -> its table group.
        seeds: Member name -> the seed of its dropout.
        frozen: Members that are not trained, nor the tables they read.
    """

    def __init__(
        self,
        *,
        towers: Mapping[str, EmbeddingTower],
        members: Mapping[str, nn.Module],
        groups: Mapping[str, str],
        seeds: Mapping[str, int],
        frozen: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self.members = nn.ModuleDict(members)
        self._groups = dict(groups)
        self._frozen = frozenset(frozen)
        self.frozen_groups = frozenset(
            group for name in self._frozen for group in (groups[name], groups[name] + FIRST_ORDER_SUFFIX)
        )
        self._dropouts = [
            (derive_seed(seeds[name], path), layer)
            for name, member in members.items()
            for path, layer in member.named_modules()
            if isinstance(layer, Dropout) and layer.probability > 0
        ]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; frozen members stay in evaluation mode, and so without dropout."""
        super().train(mode)
        for name in self._frozen:
            self.members[name].eval()
        return self

    def begin_step(self, *, step: int, rank: int) -> None:
        """Seeds every dropout layer from (member seed, layer, step, rank) alone."""
        for seed, layer in self._dropouts:
            layer.reseed(derive_seed(seed, step, rank))

    def forward(self, dense_BN: Tensor, pooled: KeyedTensor) -> list[Tensor]:
        """One logit tensor [B] per member, in member order; those of frozen members carry no gradient."""
        by_key = pooled.to_dict()
        stacked = {group: tower(by_key) for group, tower in self.towers.items()}
        stacked |= {group: stacked[group].detach() for group in self.frozen_groups & stacked.keys()}
        logits = []
        for name, member in self.members.items():
            group = self._groups[name]
            first_order = stacked[group + FIRST_ORDER_SUFFIX][:, :, 0] if member.first_order else None
            with torch.set_grad_enabled(torch.is_grad_enabled() and name not in self._frozen):
                logits.append(member(MemberInput(dense_BN, stacked[group], first_order)))
        return logits


class Ensemble(nn.Module):
    """Members on one collection of embedding tables.

    Args:
        tables: The collection of all groups' tables.
        members: Name -> member, in the order of the logits.
        groups: Member name -> its table group.
        seeds: Member name -> seed of its dropout.
        frozen: Members that are not trained, nor the tables they read: no gradient reaches either. A
            member that reads the same tables and is not named learns on top of them.
    """

    def __init__(
        self,
        *,
        tables: EmbeddingBagCollection,
        members: Mapping[str, nn.Module],
        groups: Mapping[str, str],
        seeds: Mapping[str, int],
        frozen: Collection[str] = (),
    ) -> None:
        super().__init__()
        towers = {group: EmbeddingTower(keys=keys) for group, keys in output_keys(tables).items()}
        self.tables = tables
        self.bank = MemberBank(towers=towers, members=members, groups=groups, seeds=seeds, frozen=frozen)

    @property
    def frozen_groups(self) -> frozenset[str]:
        """Table groups that are not trained: those of frozen members, with the names of their first-order groups."""
        return self.bank.frozen_groups

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return tuple(self.bank.members)

    def forward(self, dense_BN: Tensor, sparse: KeyedJaggedTensor) -> list[Tensor]:
        """Dense features [B, N] and id bags of B rows; gives one logit tensor [B] per member."""
        return self.bank(dense_BN, self.tables(sparse))


def stack_logits(logits: list[Tensor]) -> Tensor:
    """Member logits side by side, detached, float32 [B, M]."""
    return torch.stack([logit.detach() for logit in logits], dim=1).float()
