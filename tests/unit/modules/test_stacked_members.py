"""StackedMembers: what members give one by one, in values, gradients and running statistics, for every kind."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import pytest
import torch
from torch import Tensor, nn

from modules import members
from modules.contracts import MemberInput
from modules.ensemble import Ensemble
from modules.layers.batch_norm import BatchNorm
from modules.layers.dropout import Dropout
from modules.stacked_members import StackedMembers, check_stacked
from tests.unit.modules.members.test_every_member import build, inputs_of, keys_of
from tests.unit.modules.small import bags, batch, deepfm, ensemble, member_input, mlp

NUM_ROWS, NUM_REAL = 12, 9


def noisy(kind: str) -> dict[str, object]:
    """Narrow networks with every dropout and batch norm that the kind has, on."""
    keys: dict[str, object] = {key: 0.3 for key in keys_of(kind) if key.endswith("dropout")}
    keys |= {key: (16, 8) for key in keys_of(kind) if key.endswith("hidden")}
    return keys | {key: True for key in keys_of(kind) if key.endswith("batch_norm")}


def layers(of: Mapping[str, nn.Module], sort: type[nn.Module]) -> list[nn.Module]:
    return [layer for member in of.values() for layer in member.modules() if isinstance(layer, sort)]


def three(kind: str, **keys: object) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Three members in float64, every dropout layer with a seed of its own, and the same again."""
    built = {f"m{seed}": build(kind, seed=seed, **keys).double() for seed in range(3)}
    for seed, layer in enumerate(layers(built, Dropout)):
        assert isinstance(layer, Dropout)
        layer.reseed(seed)
    return built, copy.deepcopy(built)


def one_by_one(
    of: Mapping[str, nn.Module], inputs: Mapping[str, MemberInput], *, num_rows: int | None
) -> dict[str, Tensor]:
    for norm in layers(of, BatchNorm):
        assert isinstance(norm, BatchNorm)
        norm.set_rows(num_rows)
    return {name: of[name](value) for name, value in inputs.items()}


def differentiate(logits: Mapping[str, Tensor]) -> None:
    """A loss that tells rows and members apart; rows that only pad are no part of it."""
    sum((2 + index) * logit[:NUM_REAL].square().sum() for index, logit in enumerate(logits.values())).backward()  # type: ignore[union-attr]


def assert_same(found: Mapping[str, nn.Module], wanted: Mapping[str, nn.Module]) -> None:
    for name, member in wanted.items():
        gradients = {path: weight.grad for path, weight in found[name].named_parameters()}
        for path, weight in member.named_parameters():
            torch.testing.assert_close(gradients[path], weight.grad, rtol=1e-10, atol=1e-10, msg=f"{name}.{path}")
        torch.testing.assert_close(found[name].state_dict(), member.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("error")  # of an operator that vmap computes one by one
@pytest.mark.parametrize(
    ("kind", "keys"), [*((kind, {}) for kind in members.kinds()), ("finalnet", {"loss": "taught"})]
)
def test_stacked_is_one_by_one(kind: str, keys: dict[str, object]) -> None:
    built, alone = three(kind, **noisy(kind), **keys)
    stacked = StackedMembers(built)
    stacked.set_rows(NUM_REAL)
    inputs = {name: inputs_of(kind, NUM_ROWS, seed=seed, dtype=torch.float64) for seed, name in enumerate(built)}
    again = {
        name: MemberInput(*(value.clone() for value in values if value is not None)) for name, values in inputs.items()
    }
    for values in (*inputs.values(), *again.values()):
        values.embedded_BFD.requires_grad_()
    found, wanted = stacked(inputs), one_by_one(alone, again, num_rows=NUM_REAL)
    assert list(found) == list(built)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    differentiate(found)
    differentiate(wanted)
    assert_same(built, alone)
    for name, values in inputs.items():
        torch.testing.assert_close(values.embedded_BFD.grad, again[name].embedded_BFD.grad, rtol=1e-10, atol=1e-10)
    for member in (*built.values(), *alone.values()):
        member.eval()
    torch.testing.assert_close(stacked(inputs), one_by_one(alone, again, num_rows=None), rtol=1e-11, atol=1e-11)
    assert_same(built, alone)  # evaluation moves no running statistic


@pytest.mark.parametrize("kind", members.kinds())
def test_stacked_in_bfloat16_is_close(kind: str) -> None:
    built = {f"m{seed}": build(kind, seed=seed) for seed in range(3)}
    inputs = inputs_of(kind, NUM_ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.cat(list(StackedMembers(built)({name: inputs for name in built}).values()))
        wanted = torch.cat([member(inputs) for member in built.values()])
    error = (found.float() - wanted.float()).square().mean().sqrt()
    assert error <= 2**-5 * wanted.float().square().mean().sqrt()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", members.kinds())
def test_stacked_is_one_by_one_on_cuda(kind: str) -> None:
    built, alone = ({name: member.cuda() for name, member in of.items()} for of in three(kind, **noisy(kind)))
    stacked = StackedMembers(built)
    inputs = MemberInput(*(value.cuda() for value in inputs_of(kind, NUM_ROWS, dtype=torch.float64)))  # type: ignore[union-attr]
    found = stacked({name: inputs for name in built})
    wanted = one_by_one(alone, {name: inputs for name in alone}, num_rows=None)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    differentiate(found)
    differentiate(wanted)
    for name, member in alone.items():
        for path, weight in member.named_parameters():
            gradient = built[name].get_parameter(path).grad
            torch.testing.assert_close(gradient, weight.grad, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(built[name].state_dict(), member.state_dict(), rtol=1e-9, atol=1e-9)


def test_who_is_not_named_is_left_out_and_keeps_its_statistics() -> None:
    built, alone = three("mlp", **noisy("mlp"))
    stacked = StackedMembers(built)
    inputs = {name: inputs_of("mlp", NUM_ROWS, dtype=torch.float64) for name in ("m0", "m2")}
    found, wanted = stacked(inputs), one_by_one(alone, inputs, num_rows=None)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    differentiate(found)
    differentiate(wanted)
    assert_same(built, alone)
    assert [weight.grad for weight in built["m1"].parameters()] == [None] * len(list(built["m1"].parameters()))


def bank_of(*, stacks: Collection[Collection[str]], precision: str = "fp32", frozen: Collection[str] = ()) -> Ensemble:
    """Copies on shared and on own tables, one of them without some features, and members that are no copies."""
    built = {
        "deep_1": mlp(seed=1, dropout=0.5),
        "fm_1": deepfm(seed=2),
        "deep_2": mlp(seed=3, dropout=0.5),
        "solo": mlp(seed=4, dropout=0.5),
        "fm_2": deepfm(seed=5),
    }
    groups = {name: "solo" if name == "solo" else "shared" for name in built}
    plain = ensemble(built, groups=groups)
    return Ensemble(
        tables=plain.tables,
        members=built,
        groups=groups,
        seeds={name: 10 + index for index, name in enumerate(built)},
        feature_dropout={"deep_2": 0.4, "fm_1": 0.4},
        precision=precision,
        frozen=frozen,
        stacks=[list(names) for names in stacks],
    )


STACKS = (("deep_1", "deep_2", "solo"), ("fm_1", "fm_2"))


def step_of(model: Ensemble, *, stopped: Collection[str] = ()) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """A training step's logits and every gradient, of tables too."""
    model.train()
    model.bank.stop(stopped)
    model.bank.begin_step(step=3, rank=1)
    logits = model(batch(NUM_ROWS).dense_BN, bags(NUM_ROWS))
    differentiate(dict(zip(model.member_names, logits, strict=True)))
    return logits, {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("stopped", [(), ("deep_1",), ("deep_2", "solo"), ("deep_1", "deep_2", "solo")])
def test_a_bank_with_stacks_is_one_without(stopped: tuple[str, ...]) -> None:
    model, plain = bank_of(stacks=STACKS), bank_of(stacks=())
    assert list(model.state_dict()) == list(plain.state_dict())
    found, wanted = step_of(model, stopped=stopped), step_of(plain, stopped=stopped)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert all(not logit.any() for logit, name in zip(found[0], model.member_names, strict=True) if name in stopped)
    torch.testing.assert_close(
        model.eval()(batch(5).dense_BN, bags(5)), plain.eval()(batch(5).dense_BN, bags(5)), rtol=1e-5, atol=1e-6
    )


def test_a_stack_computes_in_the_banks_precision() -> None:
    exact, rough = (bank_of(stacks=STACKS, precision=precision).eval() for precision in ("fp32", "bf16"))
    plain = bank_of(stacks=(), precision="bf16").eval()
    wanted, found, alone = (torch.stack(model(batch(64).dense_BN, bags(64))) for model in (exact, rough, plain))
    assert found.dtype == torch.float32
    assert not torch.allclose(found, wanted, atol=1e-5)
    torch.testing.assert_close(found, alone, rtol=2**-5, atol=2**-5)


def test_a_frozen_member_is_in_no_stack() -> None:
    with pytest.raises(AssertionError, match="a frozen member is computed alone"):
        bank_of(stacks=STACKS, frozen=("deep_1",))


def test_members_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="they are not built alike"):
        StackedMembers({"deep": mlp(seed=1), "dropping": mlp(seed=1, dropout=0.5)})
    dot = {name: build("dlrm") for name in ("a", "b")}
    dot["b"].interaction.flat_index += 1  # type: ignore[union-attr, operator]
    with pytest.raises(ValueError, match="their constant interaction.flat_index differs"):
        StackedMembers(dot)


class Asking(nn.Module):
    """Asks what a value is, which no stack can answer for all members at once."""

    first_order = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs: MemberInput) -> Tensor:
        return inputs.embedded_BFD.sum(dim=(1, 2)) * (self.weight if self.weight.item() > 0 else -self.weight)


class Drawing(nn.Module):
    """Draws from the shared stream, so that stacked members would all have one mask."""

    first_order = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 1))

    def forward(self, inputs: MemberInput) -> Tensor:
        return self.layers(inputs.embedded_BFD.sum(dim=1)).squeeze(1)


@pytest.mark.parametrize(
    ("member", "sentence"),
    [(Asking, "torch.func.vmap: vmap: It looks like"), (Drawing, "in training they give something else")],
)
def test_what_cannot_be_stacked_is_found_before_training(member: type[nn.Module], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_stacked({"a": member(), "b": member()}, member_input(3))


def test_the_check_leaves_members_as_they_are() -> None:
    built = {f"m{seed}": build("mlp", seed=seed, **noisy("mlp")) for seed in range(2)}
    before = copy.deepcopy({name: member.state_dict() for name, member in built.items()})
    check_stacked(built, inputs_of("mlp", 3))
    for name, member in built.items():
        assert all(torch.equal(value, before[name][path]) for path, value in member.state_dict().items())
        assert all(weight.grad is None for weight in member.parameters())
