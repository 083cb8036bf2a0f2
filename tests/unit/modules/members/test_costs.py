"""Every member's cost by formula against the module: its parameters, and the products that it really computes.

Products are counted at two batch sizes, and the difference is shared among the rows between. What a pass computes once
for the whole batch, such as products of parameters alone, drops out of the difference: `Cost.multiply_adds` is per row
and leaves it out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
import torch

from configs.section import ArchConfig
from modules import members
from modules.cost import Cost
from tests.unit.modules.products import products
from tests.unit.modules.small import member_input

SETTINGS: dict[str, list[Mapping[str, object]]] = {
    "autoint": [
        {"num_layers": 2, "num_heads": 1, "attention_dim": 10, "layer_norm": True, "hidden": (6,)},
        {"num_layers": 1, "attention_dim": 6, "scale": True, "residual": False, "linear": True},
    ],
    "dcn": [{"num_layers": 1, "hidden": (6,)}],
    "dcn_v2": [
        {"low_rank_dim": 3, "num_layers": 2, "hidden": (6,), "structure": "stacked"},
        {"low_rank_dim": 3, "num_experts": 4, "hidden": (6,), "num_layers": 2},
        {
            "low_rank_dim": 3,
            "num_experts": 4,
            "projection": "tanh",
            "hidden": (),
            "structure": "cross",
            "batch_norm": False,
        },
        {"low_rank_dim": 2, "projection": "relu", "hidden": (5, 4), "structure": "stacked", "batch_norm": True},
    ],
    "dlrm": [
        {"interaction": "cat", "dense_hidden": (), "top_hidden": (6,)},
        {"dense_hidden": (5, 4), "top_hidden": (), "batch_norm": True},
    ],
    "dlrm_dcn": [{"dense_hidden": (5,), "num_layers": 2, "low_rank_dim": 3, "top_hidden": (), "batch_norm": True}],
    "finalmlp": [
        {"first_hidden": (6,), "second_hidden": (5, 4), "num_heads": 2, "gates": False, "first_batch_norm": True},
        {"second_hidden": (6,), "gate_hidden": (), "second_context": 0, "second_batch_norm": True},
        {"second_hidden": (6,), "gate_hidden": (5,), "first_context": 0, "gate_dim": 2},
    ],
    "finalnet": [
        {"first_hidden": (6, 4), "second_hidden": (), "gate": False},
        {"first_hidden": (6,), "second_hidden": (5, 3), "residual": "sum", "batch_norm": False},
        {"first_hidden": (6,), "second_hidden": (4,), "loss": "taught"},
    ],
    "gdcn": [{"structure": "stacked", "num_layers": 2, "hidden": (6, 5)}, {"num_layers": 1, "hidden": (6,)}],
    "masknet": [
        {"num_blocks": 2, "block_dim": 6, "hidden": (), "reduction_ratio": 0.3},
        {"structure": "serial", "hidden": (6, 5), "field_norm": False},
        {"structure": "serial", "hidden": (6, 5, 3), "block_norm": False},
    ],
    "multi_embedding": [
        {"num_layers": 1, "interaction_hidden": (), "top_hidden": (6,)},
        {"interaction": "mlp", "interaction_hidden": (6, 5), "top_hidden": ()},
    ],
    "rankmixer": [
        {"num_tokens": 3, "token_dim": 6, "num_layers": 3, "expansion": 3, "pooling": "flatten", "top_hidden": ()},
        {"num_tokens": 1, "token_dim": 6, "num_layers": 1, "top_hidden": (5,)},
    ],
    "tabm": [
        {"heads": 3, "hidden": (6, 5)},
        {"heads": 3, "hidden": (6, 5), "structure": "mini"},
        {"heads": 1, "hidden": (6,)},
    ],
    "wukong": [
        {"num_fm_vectors": 2, "num_linear_vectors": 3, "rank": 2, "fm_hidden": (6,), "top_hidden": (), "num_layers": 1},
        {"num_fm_vectors": 4, "num_linear_vectors": 2, "fm_hidden": (), "dense_hidden": (), "num_layers": 2},
    ],
    "xdeepfm": [{"cin_hidden": (3, 5, 2), "hidden": ()}, {"cin_hidden": (3,), "hidden": (6, 5)}],
}
"""Settings of a kind beside its defaults, small ones where they can be; each is also tried with batch norm."""

NUM_FEATURES = (1, 2, 5)
DIMS = (4, 10)
FEWER_ROWS, MORE_ROWS = 3, 8


def settings() -> list[tuple[str, Mapping[str, object]]]:
    cases: list[tuple[str, Mapping[str, object]]] = []
    for kind in members.kinds():
        keys = {field.name for field in dataclasses.fields(members.config_class(kind))}
        for setting in ({}, *SETTINGS.get(kind, [])):
            cases.append((kind, setting))
            if "batch_norm" in keys and "batch_norm" not in setting:
                cases.append((kind, {**setting, "batch_norm": True}))
    return cases


def shapes(config: type[ArchConfig]) -> list[tuple[int, int, int]]:
    """Numbers of dense features and of fields, and the tables' dim."""
    return [
        (num_dense, num_features, dim)
        for num_dense in ((0, 3) if "dense" in config.numeric else (0,))
        for num_features in NUM_FEATURES
        for dim in (DIMS if config.reads_embeddings else (0,))
    ]


def test_the_settings_are_of_kinds_that_exist() -> None:
    assert set(SETTINGS) <= set(members.kinds())


@pytest.mark.parametrize(("kind", "setting"), settings(), ids=str)
def test_the_cost_is_that_of_the_built_module(kind: str, setting: Mapping[str, object]) -> None:
    config_class = members.config_class(kind)
    config = config_class(kind=kind, **setting)
    formulas, counted = {}, {}
    for shape in shapes(config_class):
        num_dense, num_features, dim = shape
        formulas[shape] = config.cost(num_dense=num_dense, num_features=num_features, dim=dim)
        member = config.build(num_dense=num_dense, num_features=num_features, dim=dim)
        fewer, more = (
            products(member, member_input(rows, num_dense=num_dense, num_features=num_features, dim=dim))
            for rows in (FEWER_ROWS, MORE_ROWS)
        )
        per_row, rest = divmod(more - fewer, MORE_ROWS - FEWER_ROWS)
        assert rest == 0
        counted[shape] = Cost(sum(weight.numel() for weight in member.parameters()), per_row)
    assert formulas == counted
    assert all(type(figure) is int for cost in formulas.values() for figure in cost)


def test_the_counter_counts_what_is_known() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    vectors, kernel = torch.randn(2, 5, 4), torch.randn(7, 5, 1)

    class Everything(torch.nn.Module):
        def forward(self, _: object) -> None:
            network(vectors)  # 10 rows of 4 * 3 + 3
            torch.einsum("bfd,bgd->bfg", vectors, vectors)  # 2 * 5 * 5 * 4
            vectors * vectors[:1]  # 40
            vectors * 3.0 + vectors / 2 - vectors.sigmoid()
            vectors.square() + vectors**2  # 2 * 40
            torch.nn.functional.conv1d(vectors, kernel)  # 2 * 4 * 5 * 7

    counted = products(Everything(), member_input(1))
    assert counted == 150 + 200 + 40 + 80 + 280


def test_the_counter_refuses_what_it_does_not_know() -> None:
    class Unknown(torch.nn.Module):
        def forward(self, _: object) -> None:
            torch.ones(3).cumprod(dim=0)

    with pytest.raises(AssertionError, match="cumprod"):
        products(Unknown(), member_input(1))
