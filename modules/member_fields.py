"""MemberFields: which features one member reads, and as what.

Shapes: B rows, N dense features, F id features, D embedding columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from configs.section import ArchConfig
from modules.contracts import MemberInput
from modules.cost import Cost

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class MemberFields:
    """What one member reads of a row."""

    numeric: str  # dense, scaled or ids; none: the data have no numeric feature
    num_dense: int  # numeric features that it reads as numbers
    features: tuple[str, ...]  # id features, in the data's order
    embedded: bool = True  # False: it reads their weights per id alone

    def build(self, arch: ArchConfig, *, dim: int) -> nn.Module:
        """The member of that architecture for these fields, on tables of `dim` columns."""
        member: nn.Module = arch.build(**self._shapes(dim))
        if self.numeric != "scaled":
            return member
        return ScaledNumerics(member, num_dense=self.num_dense, dim=dim * self.embedded)

    def cost(self, arch: ArchConfig, *, dim: int) -> Cost:
        """What `build` gives: the member and, under scaled, a vector for each numeric feature."""
        cost: Cost = arch.cost(**self._shapes(dim))
        if self.numeric != "scaled":
            return cost
        with torch.device("meta"):
            linear = bool(self.build(arch, dim=dim).first_order)
        size = self.num_dense * (dim * self.embedded + linear)
        return cost + Cost(size, size)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "numeric": self.numeric,
            "num_dense": self.num_dense,
            "features": list(self.features),
            "embedded": self.embedded,
        }

    @staticmethod
    def of_json(value: Mapping[str, Any]) -> MemberFields:
        """The reverse of `as_json`."""
        return MemberFields(
            numeric=value["numeric"],
            num_dense=value["num_dense"],
            features=tuple(value["features"]),
            embedded=value["embedded"],
        )

    def _shapes(self, dim: int) -> dict[str, int]:
        scaled = self.num_dense * (self.numeric == "scaled")
        return {
            "num_dense": self.num_dense * (self.numeric == "dense"),
            "num_features": len(self.features) + scaled,
            "dim": dim * self.embedded,
        }


def member_fields(
    arch: type[ArchConfig] | ArchConfig,
    *,
    wish: str,
    dense_names: Sequence[str],
    id_features: Sequence[str],
    numeric_ids: Mapping[str, str],
) -> MemberFields:
    """What a member of that architecture reads of these data.

    Discretised numerics that have the number beside them are read in its place or not at all; those that stand alone
    are id features like others.

    Args:
        arch: The architecture; its `numeric` says what it can take, the published way first.
        wish: dense, scaled or ids; auto: the first of these that it takes and the data allow.
        dense_names: Numeric features.
        id_features: Id features, discretised numerics among them.
        numeric_ids: Numeric feature -> the id feature that is its discretised form.

    Raises:
        ValueError: the wish cannot be met; says why and what to choose.
    """
    twins = set(numeric_ids.values())
    others = tuple(name for name in id_features if name not in twins)
    if not id_features:
        raise ValueError("the data have no id feature, and a member reads at least one")
    if not dense_names:
        return MemberFields(numeric="none", num_dense=0, features=tuple(id_features), embedded=arch.reads_embeddings)
    alone = [name for name in dense_names if name not in numeric_ids]
    possible = [way for way in arch.numeric if (not alone if way == "ids" else others)]
    if wish == AUTO and possible:
        wish = possible[0]
    if wish not in arch.numeric:
        raise ValueError(f"{wish!r} is not how this kind takes numbers; choose one of {', '.join(arch.numeric)}")
    if wish == "ids" and alone:
        raise ValueError(
            f"'ids' needs the discretised form of every number, and {alone[0]} has none in these data; prepare them"
            " with both (tools/prepare_criteo.py --numerics both), or choose another way"
        )
    if wish == "ids":
        return MemberFields(numeric="ids", num_dense=0, features=tuple(id_features), embedded=arch.reads_embeddings)
    if not others:
        raise ValueError(f"{wish!r} leaves no id feature to read; choose 'ids', or prepare data with an id feature")
    return MemberFields(numeric=wish, num_dense=len(dense_names), features=others, embedded=arch.reads_embeddings)


class ScaledNumerics(nn.Module):
    """A member that sees each number as one more field: the number times a learned vector.

    As AutoInt has it (Song et al., CIKM 2019, equation 3). A member with weights per id gets a weight per number
    too, times the number.

    Args:
        member: Built for F + N fields and no dense feature.
        num_dense: N.
        dim: D; 0 where the member reads no embeddings.
    """

    first_order: ClassVar[bool]

    def __init__(self, member: nn.Module, *, num_dense: int, dim: int) -> None:
        super().__init__()
        self.member = member
        self.first_order = bool(member.first_order)  # type: ignore[misc]
        bound = max(dim, 1) ** -0.5
        self.vectors_ND = nn.Parameter(torch.empty(num_dense, dim).uniform_(-bound, bound)) if dim else None
        self.weights_N = nn.Parameter(torch.zeros(num_dense)) if self.first_order else None

    def forward(self, inputs: MemberInput) -> Tensor:
        """Logits [B], or [B, H], as the member gives them."""
        dense_BN, embedded_BFD, first_order_BF = inputs
        if self.vectors_ND is None:  # fields without columns, to keep their number right
            numeric_BND = dense_BN.unsqueeze(2)[:, :, :0]
        else:
            numeric_BND = dense_BN.unsqueeze(2) * self.vectors_ND
        if self.weights_N is not None:
            assert first_order_BF is not None
            first_order_BF = torch.cat([first_order_BF, dense_BN * self.weights_N], dim=1)
        fields = torch.cat([embedded_BFD, numeric_BND], dim=1)
        logits: Tensor = self.member(MemberInput(dense_BN[:, :0], fields, first_order_BF))
        return logits
