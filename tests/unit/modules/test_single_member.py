"""SingleMember: the member's own arithmetic on tables of its own."""

from __future__ import annotations

import pytest
import torch

from modules.contracts import MemberInput
from modules.members import deepfm, mlp
from modules.seeding import seeded
from modules.single_member import SingleMember

RANDOM = torch.Generator().manual_seed(0)
TABLES = {  # a feature's name may hold a dot
    "C1": torch.randn(5, 4, generator=RANDOM),
    "a.b": torch.randn(3, 4, generator=RANDOM),
}
FIRST_ORDER = {"C1": torch.randn(5, 1, generator=RANDOM), "a.b": torch.randn(3, 1, generator=RANDOM)}
DENSE = torch.randn(2, 3, generator=RANDOM)
IDS = {"C1": torch.tensor([4, 0]), "a.b": (torch.tensor([1, 2, 1]), torch.tensor([0, 0, 3]))}


def member(kind=deepfm):  # type: ignore[no-untyped-def]
    with seeded(1):  # of four ReLUs all may be dead, and then nothing would be learned
        return kind.Config(kind=kind.__name__.rpartition(".")[2], hidden=(4,)).build(num_dense=3, num_features=2, dim=4)


def test_it_pools_sums_and_gives_weights_per_id() -> None:
    one = member()
    model = SingleMember(member=one, tables=TABLES, first_order=FIRST_ORDER)
    bag = TABLES["a.b"][1] + TABLES["a.b"][2] + TABLES["a.b"][1]
    embedded = torch.stack(
        [torch.stack([TABLES["C1"][4], torch.zeros(4)]), torch.stack([TABLES["C1"][0], bag])]
    )  # row, feature, column
    weight = FIRST_ORDER["a.b"][1] + FIRST_ORDER["a.b"][2] + FIRST_ORDER["a.b"][1]
    first_order = torch.stack(
        [torch.stack([FIRST_ORDER["C1"][4, 0], torch.zeros(())]), torch.stack([FIRST_ORDER["C1"][0, 0], weight[0]])]
    )
    expected = one(MemberInput(DENSE, embedded, first_order))
    torch.testing.assert_close(model(DENSE, IDS), expected)
    assert model(DENSE, IDS).shape == (2,)


def test_without_weights_per_id_and_with_int32_ids() -> None:
    model = SingleMember(member=member(mlp), tables=TABLES)
    ids = {"C1": torch.tensor([1, 2], dtype=torch.int32), "a.b": torch.tensor([0, 0], dtype=torch.int32)}
    expected = model.member(MemberInput(DENSE, torch.stack([TABLES["C1"][[1, 2]], TABLES["a.b"][[0, 0]]], dim=1), None))
    torch.testing.assert_close(model(DENSE, ids), expected)


def test_it_trains() -> None:
    model = SingleMember(member=member(), tables=TABLES, first_order=FIRST_ORDER)
    model(DENSE, IDS).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.tables[0].weight.grad[4].abs().sum() > 0  # type: ignore[union-attr,operator,index]


def test_what_is_refused() -> None:
    model = SingleMember(member=member(mlp), tables=TABLES)
    with pytest.raises(KeyError, match="a.b"):
        model(DENSE, {"C1": torch.tensor([1, 2])})
    for bad in (5, -1):
        with pytest.raises((IndexError, RuntimeError)):
            model(DENSE, {"C1": torch.tensor([bad, 2]), "a.b": torch.tensor([0, 0])})
    with pytest.raises(AssertionError, match="weights per id"):
        SingleMember(member=member(), tables=TABLES)
