"""What every member promises; a new file of modules/members is tested by being there."""

from __future__ import annotations

import dataclasses
import pickle
import re
import sys
from typing import Any

import pytest
import torch
from torch import nn

from configs.section import ArchConfig
from modules import members
from modules.contracts import MemberInput, over_heads
from modules.layers.dropout import Dropout
from modules.seeding import seeded
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input, pick

B = 33


def dense_and_dim(kind: str) -> tuple[int, int]:
    """How many dense features the kind is given here, and columns of an embedding."""
    config_class = members.config_class(kind)
    return NUM_DENSE if "dense" in config_class.numeric else 0, DIM if config_class.reads_embeddings else 0


def build(
    kind: str, *, seed: int = 0, num_dense: int | None = None, num_features: int = NUM_FEATURES, **keys: object
) -> nn.Module:
    most_dense, dim = dense_and_dim(kind)
    config = members.config_class(kind)(kind=kind, **keys)
    with seeded(seed):
        return config.build(
            num_dense=most_dense if num_dense is None else num_dense, num_features=num_features, dim=dim
        )


def inputs_of(
    kind: str,
    num_rows: int,
    *,
    num_dense: int | None = None,
    num_features: int = NUM_FEATURES,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> MemberInput:
    most_dense, dim = dense_and_dim(kind)
    return member_input(
        num_rows,
        num_dense=most_dense if num_dense is None else num_dense,
        num_features=num_features,
        dim=dim,
        seed=seed,
        dtype=dtype,
    )


def keys_of(kind: str) -> list[str]:
    return [field.name for field in dataclasses.fields(members.config_class(kind))]


def with_widths() -> list[tuple[str, str]]:
    return [(kind, key) for kind in members.kinds() for key in keys_of(kind) if key.endswith(("hidden", "units"))]


def with_dropout() -> list[tuple[str, str]]:
    return [(kind, key) for kind in members.kinds() for key in keys_of(kind) if key.endswith("dropout")]


def idle(member: nn.Module, inputs: MemberInput) -> list[str]:
    """Parameters and inputs of at least one value that the loss does not move; none may get a gradient that is not
    finite."""
    used = [inputs.dense_BN, inputs.embedded_BFD]
    if member.first_order:
        assert inputs.first_order_BF is not None
        used.append(inputs.first_order_BF)
    for value in used:
        value.requires_grad_()
    member(inputs).square().sum().backward()
    gradients = {name: weight.grad for name, weight in member.named_parameters()}
    gradients |= {f"input {index}": value.grad for index, value in enumerate(used) if value.numel()}
    assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)
    return [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]


def test_the_kinds_are_the_files_of_the_folder() -> None:
    assert {"dcn_v2", "deepfm", "dlrm", "mlp"} <= set(members.kinds())
    assert members.kinds() == sorted(members.kinds())


@pytest.mark.parametrize("kind", members.kinds())
def test_a_kind_says_what_it_is(kind: str) -> None:
    document = sys.modules[members.config_class(kind).__module__].__doc__ or ""
    parts = re.fullmatch(
        r"[^\n]+: [^\n]+\.\n\n"
        r"Idea: (?P<idea>.+)\nEquation: (?P<equation>.+)\nSource: (?P<source>.+)\nDeviations: (?P<deviations>.+)",
        document.strip(),
        flags=re.DOTALL,
    )
    assert parts, "NAME: one clause. Then Idea, Equation, Source, Deviations, in this order"
    assert re.search(r"\b(19|20)\d\d\b", parts["source"]), "Source: the year is missing"
    assert all(part.strip().endswith(".") for part in parts.groupdict().values())


@pytest.mark.parametrize("kind", members.kinds())
def test_a_kind_says_how_it_takes_numeric_features(kind: str) -> None:
    config_class = members.config_class(kind)
    assert config_class.numeric
    assert set(config_class.numeric) <= {"dense", "scaled", "ids"}
    assert len(set(config_class.numeric)) == len(config_class.numeric)


@pytest.mark.parametrize("kind", members.kinds())
def test_a_member_builds_from_its_defaults(kind: str) -> None:
    config_class = members.config_class(kind)
    assert issubclass(config_class, ArchConfig)
    member = build(kind)
    assert isinstance(member.first_order, bool)
    assert sum(p.numel() for p in member.parameters()) > 0
    assert [name for name, p in member.named_parameters() if p.dtype != torch.float32] == []


@pytest.mark.parametrize("num_rows", [0, 1, B])
@pytest.mark.parametrize("kind", members.kinds())
def test_a_member_gives_one_logit_a_row(kind: str, num_rows: int) -> None:
    member, inputs = build(kind), inputs_of(kind, num_rows)
    in_training, logits = member(inputs), member.eval()(inputs)
    assert in_training.shape[:1] == logits.shape == (num_rows,)
    assert in_training.dtype == logits.dtype == torch.float32
    if in_training.dim() > 1:  # one for each head
        assert in_training.dim() == 2
        torch.testing.assert_close(over_heads(in_training), logits)


@pytest.mark.parametrize("width", [0, -8])
@pytest.mark.parametrize(("kind", "key"), with_widths())
def test_widths_that_are_none_are_refused(kind: str, key: str, width: int) -> None:
    with pytest.raises(ValueError) as refused:
        members.config_class(kind)(kind=kind, **{key: (16, width, 8)})
    assert str(refused.value) == f"{key}: {width} must be above zero"


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize(("kind", "key"), with_dropout())
def test_a_dropout_that_is_no_probability_is_refused(kind: str, key: str, dropout: float) -> None:
    with pytest.raises(ValueError) as refused:
        members.config_class(kind)(kind=kind, **{key: dropout})  # type: ignore[arg-type]
    assert str(refused.value) == f"{key}: {dropout} is not in [0, 1)"
    members.config_class(kind)(kind=kind, **{key: 0.0})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_features", [1, NUM_FEATURES])
@pytest.mark.parametrize("num_dense", [0, None])
@pytest.mark.parametrize("kind", members.kinds())
def test_every_parameter_and_every_input_moves_the_loss(kind: str, num_dense: int | None, num_features: int) -> None:
    member = build(kind, num_dense=num_dense, num_features=num_features)
    assert [name for name, weight in member.named_parameters() if weight.numel() == 0] == []
    unmoved = idle(member, inputs_of(kind, B, num_dense=num_dense, num_features=num_features))
    # Of a single field there are no pairs, and a member of pairs alone has no use for its embedding.
    assert unmoved == [] or (num_features == 1 and unmoved == ["input 1"])
    assert len(member(inputs_of(kind, 0, num_dense=num_dense, num_features=num_features))) == 0


@pytest.mark.parametrize("kind", members.kinds())
def test_a_member_computes_in_float64(kind: str) -> None:
    single, double = build(kind).eval(), build(kind).eval().double()
    logits = double(inputs_of(kind, B, dtype=torch.float64))
    assert logits.dtype == torch.float64
    torch.testing.assert_close(single(inputs_of(kind, B)).double(), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", members.kinds())
def test_a_state_dict_carries_the_whole_member(kind: str) -> None:
    member, other = build(kind, seed=1).eval(), build(kind, seed=2).eval()
    inputs = inputs_of(kind, B)
    assert not torch.equal(member(inputs), other(inputs))
    other.load_state_dict(pickle.loads(pickle.dumps(member.state_dict())), strict=True)
    assert torch.equal(member(inputs), other(inputs))


@pytest.mark.parametrize("kind", members.kinds())
def test_the_same_seed_gives_the_same_member(kind: str) -> None:
    inputs = inputs_of(kind, B)
    assert torch.equal(build(kind, seed=3)(inputs), build(kind, seed=3)(inputs))


@pytest.mark.parametrize("kind", members.kinds())
def test_a_member_can_be_traced(kind: str) -> None:
    member = build(kind).eval()
    traced = torch.fx.symbolic_trace(member)
    for num_rows in (1, B):  # nothing of a batch size is burned in
        inputs = inputs_of(kind, num_rows, seed=num_rows)
        assert torch.equal(traced(inputs), member(inputs))


@pytest.mark.parametrize("kind", members.kinds())
def test_a_logit_does_not_depend_on_the_other_rows(kind: str) -> None:
    # Dropout and batch norm on, so that a layer that forgets to go by its own values in evaluation is seen.
    keys: dict[str, Any] = {
        key: value for key, value in (("dropout", 0.5), ("batch_norm", True)) if key in keys_of(kind)
    }
    member = build(kind, **keys).eval()
    inputs = inputs_of(kind, B)
    together = member(inputs)
    alone = torch.cat([member(pick(inputs, [row])) for row in range(B)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    shuffle = torch.randperm(B, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(member(pick(inputs, shuffle)), together[shuffle], rtol=0, atol=1e-6)
    others = inputs_of(kind, B, seed=9)
    mixed = MemberInput(*(torch.cat([a[:1], b[1:] * 1e3]) for a, b in zip(inputs, others, strict=True)))  # type: ignore[index]
    torch.testing.assert_close(member(mixed)[:1], together[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "key"), with_dropout())
def test_dropout_acts_in_training_alone(kind: str, key: str) -> None:
    plain, dropping = build(kind).eval(), build(kind, **{key: 0.5})
    for source, target in zip(plain.parameters(), dropping.parameters(), strict=True):
        target.data.copy_(source.data)
    layers = [module for module in dropping.modules() if isinstance(module, Dropout)]
    assert layers, f"{key} is a key, and no layer drops"
    assert not [module for module in plain.modules() if isinstance(module, nn.Dropout | Dropout)]
    inputs = inputs_of(kind, B)
    assert torch.equal(dropping.eval()(inputs), plain(inputs))
    dropping.train()
    for seed, layer in enumerate(layers):
        layer.reseed(seed)
    first, again = dropping(inputs), dropping(inputs)
    assert torch.equal(first, again)
    assert not torch.equal(over_heads(first), plain(inputs))


# A bfloat16 value is rounded to 8 bits, an error of up to 2^-9 of it. Layers round their inputs, weights and outputs,
# and so many independent roundings add up like a random walk: a dozen layers make some 2^-6 of the logits' size.
BF16_TOLERANCE = 2**-5


@pytest.mark.parametrize("kind", members.kinds())
def test_bfloat16_is_close_and_its_gradients_are_finite(kind: str) -> None:
    member = build(kind)
    inputs = inputs_of(kind, B)
    exact = member.eval()(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = member(inputs)
    error, size = (rough.float() - exact).square().mean().sqrt(), exact.square().mean().sqrt()
    assert error < BF16_TOLERANCE * size
    with torch.autocast("cpu", torch.bfloat16):
        assert idle(member.train(), inputs) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", members.kinds())
def test_a_compiled_member_is_close(kind: str) -> None:
    member = build(kind)
    compiled = torch.compile(member, fullgraph=True)
    for training in (True, False):
        member.train(training)
        gradients = []
        for way in (member, compiled):
            inputs = inputs_of(kind, B)
            inputs.embedded_BFD.requires_grad_()
            logits = way(inputs)
            member.zero_grad()
            logits.square().sum().backward()
            gradients.append([logits, *(weight.grad.clone() for weight in member.parameters())])  # type: ignore[union-attr]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_an_unknown_kind_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="mpl"):
        members.config_class("mpl")


def test_a_dotted_kind_names_a_module_of_ones_own() -> None:
    assert members.config_class("modules.members.mlp") is members.config_class("mlp")
    with pytest.raises(ImportError, match=r"modules.layers.mlp: the module has no class Config\(ArchConfig\)"):
        members.config_class("modules.layers.mlp")
    with pytest.raises(ImportError):
        members.config_class("no_such_package.member")
