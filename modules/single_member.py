"""SingleMember: one member on tables of its own, in one process, without a sharded collection around it.

Shapes: B rows, N dense features, F id features, T ids of all bags of a feature, D embedding columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from modules.contracts import MemberInput

Bags: TypeAlias = Tensor | tuple[Tensor, Tensor]  # ids [B], one of each row; or ids [T] and offsets [B + 1]


class SingleMember(nn.Module):
    """A member with its embedding tables; `forward` gives what the member gives: in evaluation one logit per row.

    Args:
        member: The member.
        tables: Id feature -> weights [rows, D], in the order that the member reads them in; none: it reads weights per
            id alone.
        first_order: Id feature -> weights [rows, 1], for a member that declares `first_order`.
    """

    def __init__(
        self, *, member: nn.Module, tables: Mapping[str, Tensor], first_order: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.member = member
        self.features = tuple(tables or first_order or {})
        # By number: a feature's name may hold what no module's may.
        self.tables = nn.ModuleList(_table(tables[name]) for name in self.features if tables)
        self.first_order = nn.ModuleList(_table(first_order[name]) for name in self.features if first_order)
        assert bool(self.first_order) == bool(member.first_order), "weights per id for the members that read them"

    def forward(self, dense_BN: Tensor, bags: Mapping[str, Bags]) -> Tensor:
        """Logits [B]; in training mode [B, H] of a member with several heads.

        Args:
            dense_BN: Numeric features, float32 [B, N].
            bags: Id feature -> its ids, integers: [B], one of each row, or bags as (ids [T], offsets [B + 1]).

        Raises:
            KeyError: a feature is missing.
            IndexError: an id has no row in its table (on CPU).

        Example::

            model(dense_BN, {"C1": torch.tensor([7, 8]), "genres": (torch.tensor([1, 2, 3]), torch.tensor([0, 2, 3]))})
        """
        given = [bags[name] for name in self.features]
        embedded_BFD = dense_BN.new_empty(dense_BN.shape[0], len(given), 0)
        first_order_BF = None
        if self.tables:
            embedded_BFD = torch.stack([_pooled(t, bag) for t, bag in zip(self.tables, given, strict=True)], dim=1)
        if self.first_order:
            weights = [_pooled(table, bag) for table, bag in zip(self.first_order, given, strict=True)]
            first_order_BF = torch.cat(weights, dim=1)
        logits: Tensor = self.member(MemberInput(dense_BN, embedded_BFD, first_order_BF))
        return logits


def _table(weights: Tensor) -> nn.EmbeddingBag:
    return nn.EmbeddingBag.from_pretrained(weights, freeze=False, mode="sum", include_last_offset=True)


def _pooled(table: nn.Module, bag: Bags) -> Tensor:
    ids, offsets = bag if isinstance(bag, tuple) else (bag, torch.arange(bag.shape[0] + 1, device=bag.device))
    pooled: Tensor = table(ids.long(), offsets.long())
    return pooled
