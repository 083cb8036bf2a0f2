"""What every member promises; a new file of modules/members is tested by being there."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from torch import nn

from configs.section import ArchConfig
from modules import members
from modules.layers.dropout import Dropout
from modules.seeding import seeded
from tests.unit.modules.small import DIM, NUM_DENSE, NUM_FEATURES, member_input, pick

B = 33


def build(
    kind: str, *, seed: int = 0, num_dense: int = NUM_DENSE, num_features: int = NUM_FEATURES, **keys: object
) -> nn.Module:
    config = members.config_class(kind)(kind=kind, **keys)  # type: ignore[arg-type]
    with seeded(seed):
        return config.build(num_dense=num_dense, num_features=num_features, dim=DIM)


def with_dropout() -> list[str]:
    return [
        kind
        for kind in members.kinds()
        if "dropout" in {field.name for field in dataclasses.fields(members.config_class(kind))}
    ]


def test_the_kinds_are_the_files_of_the_folder() -> None:
    assert {"dcn_v2", "deepfm", "dlrm", "mlp"} <= set(members.kinds())
    assert members.kinds() == sorted(members.kinds())


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
    logits = build(kind)(member_input(num_rows))
    assert logits.shape == (num_rows,)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("width", [0, -8])
@pytest.mark.parametrize("kind", members.kinds())
def test_widths_that_are_none_are_refused(kind: str, width: int) -> None:
    config_class = members.config_class(kind)
    widths = [field.name for field in dataclasses.fields(config_class) if field.name.endswith("hidden")]
    assert widths
    for key in widths:
        with pytest.raises(ValueError) as refused:
            config_class(kind=kind, **{key: (16, width, 8)})
        assert str(refused.value) == f"{key}: {width} must be above zero"


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
@pytest.mark.parametrize("kind", with_dropout())
def test_a_dropout_that_is_no_probability_is_refused(kind: str, dropout: float) -> None:
    with pytest.raises(ValueError) as refused:
        members.config_class(kind)(kind=kind, dropout=dropout)  # type: ignore[call-arg]
    assert str(refused.value) == f"dropout: {dropout} is not in [0, 1)"
    members.config_class(kind)(kind=kind, dropout=0.0)  # type: ignore[call-arg]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_features", [1, NUM_FEATURES])
@pytest.mark.parametrize("kind", members.kinds())
def test_a_member_takes_data_without_dense_features(kind: str, num_features: int) -> None:
    member = build(kind, num_dense=0, num_features=num_features)
    assert [name for name, p in member.named_parameters() if p.numel() == 0] == []
    logits = member(member_input(B, num_dense=0, num_features=num_features))
    assert logits.shape == (B,)
    logits.square().sum().backward()
    assert [name for name, p in member.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert member(member_input(0, num_dense=0, num_features=num_features)).shape == (0,)


@pytest.mark.parametrize("kind", members.kinds())
def test_a_member_takes_a_single_id_feature(kind: str) -> None:
    assert build(kind, num_features=1)(member_input(3, num_features=1)).shape == (3,)


@pytest.mark.parametrize("kind", members.kinds())
def test_every_parameter_and_every_input_moves_the_loss(kind: str) -> None:
    member = build(kind)
    inputs = member_input(B)
    used = [value.requires_grad_() for value in inputs[: 3 if member.first_order else 2]]
    member(inputs).square().sum().backward()
    gradients = {name: p.grad for name, p in member.named_parameters()}
    gradients |= {f"input {index}": value.grad for index, value in enumerate(used)}
    idle = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    assert idle == []
    assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)


@pytest.mark.parametrize("kind", members.kinds())
def test_a_state_dict_carries_the_whole_member(kind: str) -> None:
    member, other = build(kind, seed=1).eval(), build(kind, seed=2).eval()
    inputs = member_input(B)
    assert not torch.equal(member(inputs), other(inputs))
    other.load_state_dict(pickle.loads(pickle.dumps(member.state_dict())), strict=True)
    assert torch.equal(member(inputs), other(inputs))


@pytest.mark.parametrize("kind", members.kinds())
def test_the_same_seed_gives_the_same_member(kind: str) -> None:
    inputs = member_input(B)
    assert torch.equal(build(kind, seed=3)(inputs), build(kind, seed=3)(inputs))


@pytest.mark.parametrize("kind", members.kinds())
def test_a_member_can_be_traced(kind: str) -> None:
    member = build(kind).eval()
    traced = torch.fx.symbolic_trace(member)
    for num_rows in (1, B):  # nothing of a batch size is burned in
        inputs = member_input(num_rows, seed=num_rows)
        assert torch.equal(traced(inputs), member(inputs))


@pytest.mark.parametrize("kind", members.kinds())
def test_a_logit_does_not_depend_on_the_other_rows(kind: str) -> None:
    # Dropout on, so that a layer that forgets to be idle in evaluation is seen.
    member = build(kind, **({"dropout": 0.5} if kind in with_dropout() else {})).eval()
    inputs = member_input(B)
    together = member(inputs)
    alone = torch.cat([member(pick(inputs, [row])) for row in range(B)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    shuffle = torch.randperm(B, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(member(pick(inputs, shuffle)), together[shuffle], rtol=0, atol=1e-6)
    others = member_input(B, seed=9)
    mixed = type(inputs)(*(torch.cat([a[:1], b[1:] * 1e3]) for a, b in zip(inputs, others, strict=True)))
    torch.testing.assert_close(member(mixed)[:1], together[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", with_dropout())
def test_dropout_acts_in_training_alone(kind: str) -> None:
    plain, dropping = build(kind).eval(), build(kind, dropout=0.5)
    for source, target in zip(plain.parameters(), dropping.parameters(), strict=True):
        target.data.copy_(source.data)
    layers = [module for module in dropping.modules() if isinstance(module, Dropout)]
    assert layers, "dropout is a key, and no layer drops"
    assert not [module for module in plain.modules() if isinstance(module, nn.Dropout | Dropout)]
    inputs = member_input(B)
    assert torch.equal(dropping.eval()(inputs), plain(inputs))
    dropping.train()
    for seed, layer in enumerate(layers):
        layer.reseed(seed)
    first, again = dropping(inputs), dropping(inputs)
    assert torch.equal(first, again)
    assert not torch.equal(first, plain(inputs))


def test_an_unknown_kind_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="mpl"):
        members.config_class("mpl")


def test_a_dotted_kind_names_a_module_of_ones_own() -> None:
    assert members.config_class("modules.members.mlp") is members.config_class("mlp")
    with pytest.raises(ImportError, match=r"modules.layers.mlp: the module has no class Config\(ArchConfig\)"):
        members.config_class("modules.layers.mlp")
    with pytest.raises(ImportError):
        members.config_class("no_such_package.member")
