"""Small inputs, tables and ensembles for the tests of modules.

Shapes: B rows, N dense features, F id features, D embedding columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from modules.contracts import MemberInput
from modules.ensemble import Ensemble
from modules.members.deepfm import FactorizationMember
from modules.members.mlp import MultiLayerMember
from modules.seeding import seeded
from modules.tables import TableSpec, build_tables, first_order_tables

NUM_DENSE, NUM_FEATURES, DIM = 5, 4, 8
FEATURES = tuple(f"C{i}" for i in range(1, NUM_FEATURES + 1))
TABLE_ROWS = 11


def member_input(
    num_rows: int,
    *,
    num_dense: int = NUM_DENSE,
    num_features: int = NUM_FEATURES,
    dim: int = DIM,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> MemberInput:
    """Random inputs of size about 1."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)

    return MemberInput(normal(num_rows, num_dense), normal(num_rows, num_features, dim), normal(num_rows, num_features))


def pick(inputs: MemberInput, rows: Sequence[int] | torch.Tensor) -> MemberInput:
    """Some rows of the inputs."""
    at = torch.as_tensor(rows)
    assert inputs.first_order_BF is not None
    return MemberInput(inputs.dense_BN[at], inputs.embedded_BFD[at], inputs.first_order_BF[at])


def spec(group: str, feature: str, **changes: object) -> TableSpec:
    """A table of a group."""
    values: dict[str, object] = {
        "group": group,
        "feature": feature,
        "num_rows": TABLE_ROWS,
        "dim": DIM,
        "optimizer": "rowwise_adagrad",
        "lr": 0.1,
        "eps": 1e-8,
        "init_bound": 0.3,
        "seed": 1,
        "placement": "auto",
    }
    return TableSpec(**{**values, **changes})  # type: ignore[arg-type]


def group_specs(group: str, *, first_order: bool = False) -> list[TableSpec]:
    """A group's tables, one per feature, and its first-order tables where wanted."""
    specs = [spec(group, feature) for feature in FEATURES]
    return specs + (first_order_tables(specs) if first_order else [])


def mlp(*, seed: int, dropout: float = 0.0) -> nn.Module:
    """A small member without first-order weights."""
    with seeded(seed):
        return MultiLayerMember(in_features=NUM_DENSE + NUM_FEATURES * DIM, hidden=(16, 8), dropout=dropout)


def deepfm(*, seed: int) -> nn.Module:
    """A small member with first-order weights."""
    with seeded(seed):
        return FactorizationMember(num_dense=NUM_DENSE, num_features=NUM_FEATURES, dim=DIM, hidden=(16,))


def ensemble(members: Mapping[str, nn.Module], *, groups: Mapping[str, str]) -> Ensemble:
    """An ensemble on the CPU whose tables' weights depend on the tables' names alone."""
    with_first_order = {groups[name] for name, member in members.items() if member.first_order}
    specs = [
        table
        for group in dict.fromkeys(groups.values())
        for table in group_specs(group, first_order=group in with_first_order)
    ]
    built = Ensemble(
        tables=build_tables(specs, device="cpu"),
        members=members,
        groups=groups,
        seeds={name: 10 + index for index, name in enumerate(members)},
    )
    with torch.no_grad():
        for config, (_, weight) in zip(
            built.tables.embedding_bag_configs(), built.tables.named_parameters(), strict=True
        ):
            random = np.random.default_rng([ord(letter) for letter in config.name])
            weight.copy_(torch.from_numpy(random.normal(size=tuple(weight.shape))))
    return built


def bags(num_rows: int, *, seed: int = 0) -> KeyedJaggedTensor:
    """One id per row and feature."""
    ids = np.random.default_rng(seed).integers(0, TABLE_ROWS, (NUM_FEATURES, num_rows))
    return KeyedJaggedTensor(
        keys=list(FEATURES),
        values=torch.from_numpy(ids.reshape(-1)),
        lengths=torch.ones(NUM_FEATURES * num_rows, dtype=torch.int32),
        stride=num_rows,
    )


def batch(num_rows: int, *, seed: int = 0) -> SimpleNamespace:
    """A batch without padding, as the task reads it."""
    random = np.random.default_rng([seed, 1])
    return SimpleNamespace(
        dense_BN=torch.from_numpy(random.normal(size=(num_rows, NUM_DENSE)).astype(np.float32)),
        sparse=bags(num_rows, seed=seed),
        labels_B=torch.from_numpy(random.integers(0, 2, num_rows).astype(np.float32)),
        loss_weights_B=torch.full((num_rows,), 1.0 / num_rows),
    )
