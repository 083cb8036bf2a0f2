"""The TabM member against its equation written out, how it starts, and what its heads share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from modules.layers.batch_norm import BatchNorm
from modules.members.tabm import Config, HeadsMember
from tests.unit.modules import plain
from tests.unit.modules.small import member_input

NUM_DENSE, NUM_FEATURES, DIM = 2, 3, 4
WIDTH, HEADS = NUM_DENSE + NUM_FEATURES * DIM, 3


def built(**keys: object) -> HeadsMember:
    config = Config(kind="tabm", heads=HEADS, hidden=(7, 6), **keys)  # type: ignore[arg-type]
    member = config.build(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM)
    assert isinstance(member, HeadsMember)
    return member


def logit(weights: Mapping[str, plain.Vector], x: plain.Vector, head: int, *, structure: str, norms: bool) -> float:
    """One head's, from the layers' places in the network."""
    place, values = 0, x

    def scaled(values: plain.Vector) -> plain.Vector:
        return np.array([value * weights[f"layers.{place}.factors"][head][i] for i, value in enumerate(values)])

    for layer in range(2):
        if layer == 0 or structure == "tabm":
            values = scaled(values)
            place += 1
        values = plain.linear(weights, f"layers.{place}", values)
        place += 1
        if structure == "tabm":
            values = scaled(values) + weights[f"layers.{place}.biases"][head]
            place += 1
        if norms:
            mine = slice(head * len(values), (head + 1) * len(values))
            of_head = {
                f"norm.{key}": weights[f"layers.{place}.norm.{key}"][mine]
                for key in ("weight", "bias", "running_mean", "running_var")
            }
            values = plain.batch_norm(of_head, "norm", values)
            place += 1
        values = np.array([max(0.0, value) for value in values])
        place += 1
    return plain.inner(weights["output.weight"][head], values) + weights["output.bias"][head]


@pytest.mark.parametrize("structure", ["tabm", "mini"])
@pytest.mark.parametrize("norms", [False, True])
def test_the_member_is_its_equation(structure: str, norms: bool) -> None:
    member = plain.unsettled(built(structure=structure, batch_norm=norms))
    inputs = member_input(9, num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = [
        [
            logit(weights, plain.side_by_side(dense, embedded), head, structure=structure, norms=norms)
            for head in range(HEADS)
        ]
        for dense, embedded, _ in plain.rows_of(inputs)
    ]
    plain.assert_rows_are(member(inputs), [sum(of_heads) / HEADS for of_heads in expected])
    member.training = True  # the norms stay in evaluation
    for head, logits in enumerate(member(inputs).unbind(dim=1)):
        plain.assert_rows_are(logits, [of_heads[head] for of_heads in expected])


def test_signs_alone_tell_the_hidden_layers_apart_at_the_start() -> None:
    torch.manual_seed(1)
    state = Config(kind="tabm", heads=64, hidden=(7, 6)).build(num_dense=0, num_features=16, dim=4).state_dict()
    signs = state["layers.0.factors"]
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05  # of 4096: three standard deviations
    assert len(signs.unique(dim=0)) == 64
    factors = [key for key in state if key.endswith("factors")]
    assert len(factors) == 4 and all((state[key] == 1).all() for key in factors[1:])
    for key, bound in (("layers.2.biases", 64**-0.5), ("layers.6.biases", 7**-0.5)):
        assert (state[key] == state[key][0]).all() and state[key].unique().numel() > 1
        assert state[key].abs().max() <= bound
    assert len(state["output.weight"].unique(dim=0)) == 64


@pytest.mark.parametrize("structure", ["tabm", "mini"])
def test_a_heads_logit_reads_no_other_heads_own_weights(structure: str) -> None:
    member = built(structure=structure)
    inputs = member_input(9, num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM)
    member(inputs)[:, 1].sum().backward()
    own = {name: weight.grad for name, weight in member.named_parameters() if "layers.1.w" not in name}
    shared = {name for name in own if name.endswith(("weight", "bias")) and not name.startswith("output")}
    assert len(own) - len(shared) == (3 if structure == "mini" else 8)
    for name in set(own) - shared:
        gradient = own[name]
        assert gradient is not None and len(gradient) == HEADS
        assert gradient[1].any() and not gradient[0].any() and not gradient[2].any()


def test_batch_norm_is_of_each_heads_real_rows() -> None:
    member = built(batch_norm=True)
    inputs = member_input(9, num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM)
    norm = next(layer for layer in member.modules() if isinstance(layer, BatchNorm))
    norm.set_rows(6)
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _module, values: seen.append(values[0].detach()))
    member(inputs)
    values = seen[0].view(9, HEADS, 7)[:6]
    for head in range(HEADS):
        for column in range(7):
            mean = sum(values[row, head, column].item() for row in range(6)) / 6
            assert norm.running_mean[head * 7 + column].item() == pytest.approx(0.1 * mean, abs=1e-6)
    assert len(norm.running_mean.view(HEADS, 7).unique(dim=0)) == HEADS


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"heads": 0}, "heads: 0 must be above zero"),
        ({"hidden": ()}, "hidden: give at least one width; it is hidden layers that the heads share"),
    ],
)
def test_senseless_keys_are_refused(keys: Mapping[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="tabm", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
