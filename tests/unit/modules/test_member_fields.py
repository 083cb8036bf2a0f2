"""Which features a member reads, and numbers as fields."""

from __future__ import annotations

import pytest
import torch

from modules import members
from modules.contracts import MemberInput
from modules.cost import Cost
from modules.member_fields import MemberFields, ScaledNumerics, member_fields
from tests.unit.modules.small import member_input

IDS = ("C1", "I1_id", "C2", "I2_id")
TWINS = {"I1": "I1_id", "I2": "I2_id"}


def fields(
    kind: str, wish: str, *, dense: tuple[str, ...] = ("I1", "I2"), twins: dict[str, str] = TWINS
) -> MemberFields:
    return member_fields(members.config_class(kind), wish=wish, dense_names=dense, id_features=IDS, numeric_ids=twins)


def test_numbers_are_read_once_in_one_of_three_ways() -> None:
    as_vector, as_fields, as_ids = (fields("mlp", wish) for wish in ("dense", "scaled", "ids"))
    assert as_vector == MemberFields(numeric="dense", num_dense=2, features=("C1", "C2"))
    assert as_fields == MemberFields(numeric="scaled", num_dense=2, features=("C1", "C2"))
    assert as_ids == MemberFields(numeric="ids", num_dense=0, features=IDS)


def test_auto_is_the_published_way_that_the_data_allow() -> None:
    assert fields("mlp", "auto").numeric == "dense"
    assert fields("autoint", "auto").numeric == "scaled"
    assert fields("ipnn", "auto").numeric == "ids"
    assert fields("ipnn", "auto", twins={"I1": "I1_id"}).numeric == "scaled"
    # Discretised numerics that stand alone are id features like others.
    assert fields("mlp", "auto", dense=(), twins={}) == MemberFields(numeric="none", num_dense=0, features=IDS)
    assert fields("mlp", "ids", dense=(), twins={}).features == IDS
    assert not fields("lr", "auto").embedded


def test_a_wish_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(ValueError, match="'dense' is not how this kind takes numbers; choose one of scaled, ids"):
        fields("autoint", "dense")
    with pytest.raises(ValueError, match="'ids' needs the discretised form of every number, and I2 has none"):
        fields("mlp", "ids", twins={"I1": "I1_id"})


def test_a_member_reads_at_least_one_id_feature() -> None:
    numbers = {"dense_names": ("I1",), "id_features": ("I1_id",), "numeric_ids": {"I1": "I1_id"}}
    kind = members.config_class("mlp")
    assert member_fields(kind, wish="auto", **numbers).numeric == "ids"  # type: ignore[arg-type]
    for wish in ("dense", "scaled"):
        with pytest.raises(ValueError, match=f"'{wish}' leaves no id feature to read; choose 'ids'"):
            member_fields(kind, wish=wish, **numbers)  # type: ignore[arg-type]
    for dense in ((), ("I1",)):
        with pytest.raises(ValueError, match="no id feature"):
            member_fields(kind, wish="auto", dense_names=dense, id_features=(), numeric_ids={})


@pytest.mark.parametrize("kind", members.kinds())
@pytest.mark.parametrize("wish", ["dense", "scaled", "ids"])
def test_every_kind_takes_numbers_as_it_says(kind: str, wish: str) -> None:
    arch = members.config_class(kind)(kind=kind)
    if wish not in arch.numeric:
        pytest.skip(f"{kind} takes numbers as {', '.join(arch.numeric)}")
    found = fields(kind, wish)
    member = found.build(arch, dim=8).eval()
    inputs = member_input(6, num_dense=2, num_features=len(found.features), dim=8 * found.embedded)
    if wish == "ids":
        inputs = inputs._replace(dense_BN=inputs.dense_BN[:, :0])
    assert member(inputs).shape == (6,)
    trained = sum(parameter.numel() for parameter in member.parameters())
    assert found.cost(arch, dim=8).parameters == trained
    assert MemberFields.of_json(found.as_json()) == found


def test_a_number_is_a_field_of_its_own() -> None:
    """What the member sees: the number times the vector, and the number times its weight."""
    seen: list[MemberInput] = []

    class Spy(torch.nn.Module):
        first_order = True

        def forward(self, inputs: MemberInput) -> torch.Tensor:
            seen.append(inputs)
            return inputs.embedded_BFD.sum(dim=(1, 2))

    wrapped = ScaledNumerics(Spy(), num_dense=5, dim=8)
    assert wrapped.first_order and wrapped.vectors_ND is not None and wrapped.weights_N is not None
    assert (wrapped.vectors_ND.abs() <= 8**-0.5).all() and not wrapped.weights_N.any()
    wrapped.weights_N.data.copy_(torch.arange(5.0))
    inputs = member_input(3)
    wrapped(inputs)
    (got,) = seen
    assert got.dense_BN.shape == (3, 0) and got.embedded_BFD.shape == (3, 4 + 5, 8)
    assert got.first_order_BF is not None and inputs.first_order_BF is not None
    for row in range(3):
        for number in range(5):
            value = inputs.dense_BN[row, number]
            torch.testing.assert_close(got.embedded_BFD[row, 4 + number], value * wrapped.vectors_ND[number])
            torch.testing.assert_close(got.first_order_BF[row, 4 + number], value * number)
    assert torch.equal(got.embedded_BFD[:, :4], inputs.embedded_BFD)
    assert torch.equal(got.first_order_BF[:, :4], inputs.first_order_BF)


def test_the_vectors_cost_what_they_are() -> None:
    arch = members.config_class("deepfm")(kind="deepfm")
    plain = arch.cost(num_dense=0, num_features=4, dim=8)
    assert fields("deepfm", "scaled").cost(arch, dim=8) == plain + Cost(2 * 8 + 2, 2 * 8 + 2)
