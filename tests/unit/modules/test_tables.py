"""Tables: names, output keys, and first-order tables that follow the one-column rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchrec.modules.embedding_configs import PoolingType
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from modules.tables import FIRST_ORDER_DIM, build_tables, first_order_tables, output_keys
from tests.unit.modules.small import FEATURES, group_specs, spec


def test_a_table_is_named_by_its_group_and_feature() -> None:
    assert spec("shared", "C3").name == "shared/C3"
    assert [table.name for table in first_order_tables([spec("shared", "C3")])] == ["shared+first_order/C3"]


def test_tables_are_built_as_specified() -> None:
    tables = build_tables([spec("a", "C1", num_rows=7, dim=4), spec("b", "C9", num_rows=3, dim=12)], device="meta")
    first, second = tables.embedding_bag_configs()
    assert (first.name, first.feature_names, first.num_embeddings, first.embedding_dim) == ("a/C1", ["C1"], 7, 4)
    assert (second.name, second.feature_names, second.num_embeddings, second.embedding_dim) == ("b/C9", ["C9"], 3, 12)
    assert first.pooling == second.pooling == PoolingType.SUM
    assert {name: (tuple(p.shape), p.device.type) for name, p in tables.named_parameters()} == {
        "embedding_bags.a/C1.weight": ((7, 4), "meta"),
        "embedding_bags.b/C9.weight": ((3, 12), "meta"),
    }


def test_a_feature_of_one_table_is_its_own_key() -> None:
    assert output_keys(build_tables(group_specs("only"), device="meta")) == {"only": {name: name for name in FEATURES}}


def test_a_feature_of_several_tables_is_told_apart_by_table() -> None:
    specs = [spec("a", "C1"), spec("a", "C2"), spec("b", "C2"), *first_order_tables([spec("b", "C2")])]
    assert output_keys(build_tables(specs, device="meta")) == {
        "a": {"C1": "C1", "C2": "C2@a/C2"},
        "b": {"C2": "C2@b/C2"},
        "b+first_order": {"C2": "C2@b+first_order/C2"},
    }


@pytest.mark.parametrize(
    ("placement", "kept"),
    [
        ("column_wise", "table_wise"),
        ("table_column_wise", "table_wise"),
        ("grid", "table_row_wise"),
        ("row_wise", "row_wise"),
        ("auto", "auto"),
    ],
)
def test_first_order_tables_keep_their_rows_whole(placement: str, kept: str) -> None:
    (table,) = first_order_tables([spec("a", "C1", placement=placement, kernel="uvm")])
    assert (table.placement, table.kernel) == (kept, "uvm")


def test_a_table_knows_where_the_configuration_speaks_of_it() -> None:
    assert [spec("deep", "C1", section="own").key, spec("shared", "C1").key] == ["tables.own", "tables.shared"]
    assert [table.key for table in first_order_tables([spec("shared", "C1")])] == ["tables.shared"]


def test_first_order_tables_start_at_zero_and_keep_the_rest() -> None:
    (table,) = first_order_tables([spec("a", "C1", placement="row_wise", seed=5)])
    assert (table.dim, table.init_bound) == (FIRST_ORDER_DIM, 0.0)
    assert (table.num_rows, table.placement, table.seed, table.optimizer) == (11, "row_wise", 5, "rowwise_adagrad")


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_rules_that_go_by_column_keep_their_step(optimizer: str) -> None:
    (table,) = first_order_tables([spec("a", "C1", optimizer=optimizer, lr=0.3, eps=1e-3)])
    assert (table.lr, table.eps) == (0.3, 1e-3)


@pytest.mark.parametrize("eps", [1e-8, 0.5])
def test_the_first_column_follows_the_one_column_rule(eps: float) -> None:
    """Row-wise Adagrad on the dim-4 table against Adagrad on one number a row, written out."""
    num_rows, lr = 3, 0.2
    (table,) = first_order_tables([spec("a", "C1", num_rows=num_rows, lr=lr, eps=eps)])
    weight = torch.nn.Parameter(torch.zeros(num_rows, table.dim, dtype=torch.float64))
    optimizer = RowWiseAdagrad([weight], lr=table.lr, eps=table.eps)
    value, squares = np.zeros(num_rows), np.zeros(num_rows)
    random = np.random.default_rng(0)
    for step in range(20):
        gradient = random.normal(size=num_rows) * 10.0 ** random.integers(-3, 3)
        gradient[step % num_rows] = 0.0
        for row in range(num_rows):
            squares[row] += gradient[row] ** 2
            if gradient[row]:
                value[row] -= lr * gradient[row] / (squares[row] ** 0.5 + eps)
        weight.grad = torch.zeros_like(weight)
        weight.grad[:, 0] = torch.from_numpy(gradient)
        optimizer.step()
        np.testing.assert_allclose(weight[:, 0].detach().numpy(), value, rtol=1e-5, atol=1e-7)
    assert not weight[:, 1:].any()
    assert np.abs(value).max() > 0.1
