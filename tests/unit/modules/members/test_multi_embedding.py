"""The multi-embedding member against its equation written out, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from modules.members.multi_embedding import Config
from tests.unit.modules import plain
from tests.unit.modules.small import member_input

NUM_DENSE, NUM_FEATURES, TABLES, TABLE_DIM = 2, 3, 3, 2


def logit(weights: Mapping[str, plain.Vector], dense: plain.Vector, fields: plain.Vector, config: Config) -> float:
    found = []
    for table in range(TABLES):
        columns = [vector[table * TABLE_DIM + column] for vector in fields for column in range(TABLE_DIM)]
        x0 = x = np.array([*dense, *columns])
        place = 0
        if config.interaction == "cross":
            for layer in range(config.num_layers):
                crossed = plain.linear(weights, f"interactions.{table}.0.layers.{layer}", x)
                x = np.array([x0[i] * crossed[i] + x[i] for i in range(len(x))])
            place = 1
        found.append(
            plain.mlp(
                weights,
                f"interactions.{table}.{place}.layers",
                x,
                num_hidden=len(config.interaction_hidden),
                last_linear=False,
                batch_norms=config.batch_norm,
            )
        )
    mean = np.array([sum(values[i] for values in found) / TABLES for i in range(len(found[0]))])
    top = plain.mlp(
        weights,
        "top.layers",
        mean,
        num_hidden=len(config.top_hidden),
        last_linear=True,
        batch_norms=config.batch_norm,
    )
    return float(top[0])


@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
@pytest.mark.parametrize(
    "keys",
    [
        {"num_layers": 2, "interaction_hidden": (7,)},
        {"num_layers": 1, "interaction_hidden": (), "top_hidden": (), "batch_norm": True},
        {"interaction": "mlp", "interaction_hidden": (7, 6), "batch_norm": True},
        {"interaction": "mlp", "interaction_hidden": (16,), "top_hidden": (12, 8)},
    ],
    ids=str,
)
def test_the_member_is_its_equation(num_dense: int, keys: Mapping[str, object]) -> None:
    config = Config(kind="multi_embedding", num_tables=TABLES, **({"top_hidden": (6,)} | keys))  # type: ignore[arg-type]
    dim = TABLES * TABLE_DIM
    member = plain.unsettled(config.build(num_dense=num_dense, num_features=NUM_FEATURES, dim=dim))
    inputs = member_input(9, num_dense=num_dense, num_features=NUM_FEATURES, dim=dim, dtype=torch.float64)
    weights = plain.weights_of(member)
    expected = [logit(weights, dense, embedded, config) for dense, embedded, _ in plain.rows_of(inputs)]
    plain.assert_rows_are(member(inputs), expected)


def test_slices_learn_under_adam_as_tables_of_their_own() -> None:
    torch.manual_seed(1)
    config = Config(kind="multi_embedding", num_tables=TABLES, interaction_hidden=(8,), top_hidden=(8,))
    member = config.build(num_dense=0, num_features=NUM_FEATURES, dim=TABLES * TABLE_DIM)
    inputs = member_input(9, num_dense=0, num_features=NUM_FEATURES, dim=TABLES * TABLE_DIM)
    whole = inputs.embedded_BFD.clone().requires_grad_()
    own = [part.clone().requires_grad_() for part in inputs.embedded_BFD.chunk(TABLES, dim=2)]
    rules = [torch.optim.Adam([whole], lr=0.1), *(torch.optim.Adam([part], lr=0.1) for part in own)]
    for _ in range(3):
        member(inputs._replace(embedded_BFD=whole)).square().sum().backward()
        member(inputs._replace(embedded_BFD=torch.cat(own, dim=2))).square().sum().backward()
        for rule in rules:
            rule.step()
            rule.zero_grad()
    assert torch.equal(whole, torch.cat(own, dim=2))
    assert (whole - inputs.embedded_BFD).abs().min() > 0.01


@pytest.mark.parametrize(
    ("dim", "sentence"),
    [
        (16, "the 16 columns that this member's tables have; give them dim = 15 or 18, or another num_tables"),
        (2, "the 2 columns that this member's tables have; give them dim = 3, or another num_tables"),
    ],
)
def test_columns_that_cannot_be_cut_are_refused_when_they_are_known(dim: int, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="multi_embedding", num_tables=3).build(num_dense=0, num_features=4, dim=dim)
    assert str(refused.value) == f"num_tables: 3 tables cannot be cut from {sentence}"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"num_tables": 0}, "num_tables: 0 must be above zero"),
        (
            {"interaction": "mlp", "num_layers": 2},
            "num_layers: 2 cross layers have no place in interaction = 'mlp'; remove the key",
        ),
        (
            {"interaction": "mlp", "interaction_hidden": ()},
            "interaction_hidden: give at least one width; under interaction = 'mlp' it is all that a module has",
        ),
    ],
)
def test_senseless_keys_are_refused(keys: Mapping[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        Config(kind="multi_embedding", **keys)  # type: ignore[arg-type]
    assert str(refused.value) == sentence
