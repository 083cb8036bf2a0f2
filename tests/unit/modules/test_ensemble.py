"""Ensemble: members read by key, dropout set per step, first-order weights from column 0."""

from __future__ import annotations

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from modules.contracts import MemberInput
from modules.ensemble import Ensemble, stack_logits
from modules.layers.dropout import Dropout
from modules.members.mlp import MultiLayerMember
from modules.tables import build_tables
from tests.unit.modules.small import (
    DIM,
    NUM_DENSE,
    NUM_FEATURES,
    bags,
    batch,
    deepfm,
    ensemble,
    group_specs,
    mlp,
    spec,
)


def three_members() -> Ensemble:
    members = {"deep": mlp(seed=1), "solo": mlp(seed=2), "fm": deepfm(seed=3)}
    return ensemble(members, groups={"deep": "shared", "solo": "solo", "fm": "shared"})


def permuted(pooled: KeyedTensor, order: list[int]) -> KeyedTensor:
    """The same embeddings with their columns laid out in another order, as another plan would."""
    keys, lengths = pooled.keys(), pooled.length_per_key()
    parts = torch.split(pooled.values(), lengths, dim=1)
    return KeyedTensor(
        keys=[keys[i] for i in order],
        length_per_key=[lengths[i] for i in order],
        values=torch.cat([parts[i] for i in order], dim=1),
    )


def test_a_batch_gives_a_logit_per_member_and_row() -> None:
    model = three_members()
    logits = model(batch(6).dense_BN, bags(6))
    assert model.member_names == ("deep", "solo", "fm")
    assert [tuple(logit.shape) for logit in logits] == [(6,)] * 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_order_of_the_pooled_columns_does_not_matter(seed: int) -> None:
    model, dense = three_members(), batch(9).dense_BN
    pooled = model.tables(bags(9))
    order = torch.randperm(len(pooled.keys()), generator=torch.Generator().manual_seed(seed)).tolist()
    assert order != sorted(order)
    for one, other in zip(model.bank(dense, pooled), model.bank(dense, permuted(pooled, order)), strict=True):
        assert torch.equal(one, other)


def test_members_see_their_own_groups_rows() -> None:
    """Each member alone, fed from its tables by hand."""
    model, inputs, ids = three_members(), batch(7), bags(7)
    tables = {name: bag.weight for name, bag in model.tables.embedding_bags.items()}
    values = ids.values().view(NUM_FEATURES, 7)
    logits = model(inputs.dense_BN, ids)
    for member, group, logit in zip(model.member_names, ("shared", "solo", "shared"), logits, strict=True):
        rows = [tables[f"{group}/{key}"][values[i]] for i, key in enumerate(ids.keys())]
        first_order = torch.stack(
            [tables[f"shared+first_order/{key}"][values[i], 0] for i, key in enumerate(ids.keys())], dim=1
        )
        alone = model.bank.members[member](MemberInput(inputs.dense_BN, torch.stack(rows, dim=1), first_order))
        torch.testing.assert_close(logit, alone, rtol=0, atol=1e-6)


def test_only_column_0_of_a_first_order_table_gets_a_gradient() -> None:
    model = ensemble({"fm": deepfm(seed=3)}, groups={"fm": "shared"})
    model(batch(8).dense_BN, bags(8))[0].sum().backward()
    for spec_ in group_specs("shared", first_order=True)[NUM_FEATURES:]:
        gradient = model.tables.embedding_bags[spec_.name].weight.grad
        assert gradient is not None
        assert gradient[:, 0].any()
        assert not gradient[:, 1:].any()


def test_an_empty_bag_is_a_zero_vector() -> None:
    model = ensemble({"deep": mlp(seed=1)}, groups={"deep": "shared"})
    empty = KeyedJaggedTensor(
        keys=bags(1).keys(),
        values=torch.empty(0, dtype=torch.int64),
        lengths=torch.zeros(NUM_FEATURES, dtype=torch.int32),
        stride=1,
    )
    assert not model.tables(empty).values().any()


def masks(model: Ensemble, *, step: int, rank: int) -> list[torch.Tensor]:
    """The masks that every dropout layer would draw."""
    model.bank.begin_step(step=step, rank=rank)
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    return [layer.train()(torch.ones(64)) for layer in layers]


def dropping(seed_of_deep: int = 10) -> Ensemble:
    members = {"deep": mlp(seed=1, dropout=0.5), "solo": mlp(seed=1, dropout=0.5)}
    built = ensemble(members, groups={"deep": "shared", "solo": "solo"})
    return Ensemble(
        tables=built.tables,
        members=members,
        groups={"deep": "shared", "solo": "solo"},
        seeds={"deep": seed_of_deep, "solo": 11},
    )


def test_dropout_is_a_function_of_seed_step_and_rank() -> None:
    first = masks(dropping(), step=3, rank=1)
    assert len(first) == 4
    later = dropping()
    masks(later, step=2, rank=1)  # what came before plays no part: a resumed run needs no saved state
    assert all(torch.equal(a, b) for a, b in zip(masks(later, step=3, rank=1), first, strict=True))
    for other in (masks(dropping(), step=4, rank=1), masks(dropping(), step=3, rank=0)):
        assert not any(torch.equal(a, b) for a, b in zip(other, first, strict=True))
    reseeded = masks(dropping(seed_of_deep=12), step=3, rank=1)
    assert [torch.equal(a, b) for a, b in zip(reseeded, first, strict=True)] == [False, False, True, True]


def test_no_two_layers_or_members_share_a_mask() -> None:
    found = masks(dropping(), step=0, rank=0)
    assert len({tuple(mask.tolist()) for mask in found}) == len(found)


def test_logits_are_stacked_without_a_gradient() -> None:
    logits = [torch.tensor([1.0, 2.0], requires_grad=True, dtype=torch.float64), torch.tensor([3.0, 4.0])]
    stacked = stack_logits(logits)
    assert stacked.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert stacked.dtype == torch.float32
    assert not stacked.requires_grad


def test_members_may_have_tables_of_other_widths() -> None:
    tables = build_tables([*group_specs("shared"), spec("own", "C1", dim=4)], device="cpu")
    narrow = MultiLayerMember(in_features=NUM_DENSE + 4, hidden=(3,))
    model = Ensemble(
        tables=tables,
        members={"deep": mlp(seed=1), "narrow": narrow},
        groups={"deep": "shared", "narrow": "own"},
        seeds={"deep": 1, "narrow": 2},
    )
    assert DIM != 4
    assert [tuple(logit.shape) for logit in model(batch(5).dense_BN, bags(5))] == [(5,), (5,)]


def freezing(frozen: tuple[str, ...]) -> Ensemble:
    """`deep` and `fm` on shared tables, `solo` on its own; the MLPs drop half."""
    members = {"deep": mlp(seed=1, dropout=0.5), "solo": mlp(seed=2, dropout=0.5), "fm": deepfm(seed=3)}
    groups = {"deep": "shared", "solo": "solo", "fm": "shared"}
    built = ensemble(members, groups=groups)
    seeds = {name: 10 for name in members}
    return Ensemble(tables=built.tables, members=members, groups=groups, seeds=seeds, frozen=frozen)


@pytest.mark.parametrize(("frozen", "silent_tables"), [(("deep",), "shared"), (("fm",), "shared"), (("solo",), "solo")])
def test_no_gradient_reaches_a_frozen_member_or_its_tables(frozen: tuple[str, ...], silent_tables: str) -> None:
    model = freezing(frozen)
    assert model.frozen_groups == {silent_tables, f"{silent_tables}+first_order"}
    model.bank.begin_step(step=0, rank=0)
    sum(logit.sum() for logit in model(batch(8).dense_BN, bags(8))).backward()
    for name, parameter in model.bank.members.named_parameters():
        assert (parameter.grad is None) == (name.partition(".")[0] in frozen), name
    for name, parameter in model.tables.named_parameters():
        of_group = name.removeprefix("embedding_bags.").startswith((f"{silent_tables}/", f"{silent_tables}+"))
        assert (parameter.grad is None or not parameter.grad.any()) == of_group, name


def test_a_frozen_member_gives_in_training_what_it_gives_in_evaluation() -> None:
    model = freezing(("deep",))
    dense, ids = batch(8).dense_BN, bags(8)
    model.bank.begin_step(step=0, rank=0)
    in_evaluation = model.eval()(dense, ids)
    in_training = model.train()(dense, ids)
    assert [torch.equal(one, other) for one, other in zip(in_training, in_evaluation, strict=True)] == [
        True,
        False,
        True,
    ]
    assert [logit.requires_grad for logit in in_training] == [False, True, True]
    assert [member.training for member in model.bank.members.values()] == [False, True, True]
    fresh = freezing(("deep",))  # before anybody has set a mode
    assert [member.training for member in fresh.bank.members.values()] == [False, True, True]


def test_freezing_one_leaves_the_others_as_they_were() -> None:
    """`solo` shares nothing with the frozen members: its gradients keep every bit."""
    found = []
    for frozen in ((), ("deep", "fm")):
        model = freezing(frozen)
        model.bank.begin_step(step=0, rank=0)
        model(batch(8).dense_BN, bags(8))[1].sum().backward()
        found.append([p.grad for p in model.bank.members["solo"].parameters()])
    assert all(one is not None and torch.equal(one, other) for one, other in zip(*found, strict=True))
