"""Table rows: ids are as asked for, kernels update as they are told, and planted rates are found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.unit.trainer.analysis.hardware_bench.here import QUICK, alone
from trainer.analysis.hardware_bench import table_access
from trainer.analysis.hardware_bench.points import Point
from trainer.analysis.hardware_bench.table_access import IdShape, TablesOrder, fit_lookup, measure_tables, tables_orders

CPU = torch.device("cpu")


def seconds(size: dict[str, float], rate: tuple[float, ...]) -> float:
    id_ns, id_gb, row_ns, row_gb, bag_gb = rate
    row_bytes = size["row_bytes"]
    rows = size["ids"] * (id_ns + row_bytes / id_gb) + size["distinct"] * (row_ns + row_bytes / row_gb)
    return 1e-9 * (rows + size["bags"] * row_bytes / bag_gb)


def test_planted_rates_of_each_pass_are_found() -> None:
    random = np.random.default_rng(7)
    rates = {"forward": (8.0, 20.0, 30.0, 6.0, 3.0), "adagrad": (15.0, 4.0, 60.0, 1.5, 1.0)}
    points = []
    for what, rate in rates.items():
        for row_bytes in (32.0, 64.0, 128.0, 256.0, 512.0):
            for ids in (1e4, 1e5, 1e6):
                for share in (0.1, 0.5, 1.0):
                    for bag in (1, 10):
                        size = {"ids": ids, "distinct": ids * share, "bags": ids / bag, "row_bytes": row_bytes}
                        took = seconds(size, rate) * np.exp(random.normal(0, 0.02))
                        points.append(Point(what=what, size=size, seconds=(float(took),)))
    lookup, fits = fit_lookup(points, where="far")
    assert set(lookup.backward) == {"adagrad"}
    for what, rate in (("forward", lookup.forward), ("adagrad", lookup.backward["adagrad"])):
        assert dataclasses.astuple(rate) == pytest.approx(rates[what], rel=0.25)
    assert [fit.num_points for fit in fits] == [90, 90]
    assert max(fit.worst_error for fit in fits) < 0.15


def test_uniform_ids_are_all_over_the_table_and_skewed_ones_at_its_beginning() -> None:
    rows = 1_000
    uniform = table_access._ids(IdShape(batch_size=2_000, bag_size=1, zipf=0.0), rows=rows, device=CPU)
    skewed = table_access._ids(IdShape(batch_size=1_000, bag_size=2, zipf=1.1), rows=rows, device=CPU)
    for ids in (uniform, skewed):
        assert (ids.dtype, len(ids)) == (torch.int32, 26 * 2_000)
        assert int(ids.min()) >= 0
        assert int(ids.max()) < rows
    assert float((uniform < 100).float().mean()) == pytest.approx(0.1, abs=0.01)
    # frequency ~ rank^-s: rank r is as frequent as r^-1.1 says, here the first and the tenth of those seen often.
    counts = torch.bincount(skewed, minlength=rows).double()
    assert float(counts[9] / counts[99]) == pytest.approx(10**1.1, rel=0.25)
    assert table_access._num_distinct(skewed, rows=rows) < table_access._num_distinct(uniform, rows=rows)


def test_distinct_rows_are_counted_table_by_table() -> None:
    ids = torch.zeros(26, 4, dtype=torch.int32)
    ids[3] = torch.tensor([1, 2, 2, 0])
    assert table_access._num_distinct(ids.flatten(), rows=5) == 25 + 3


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "rowwise_adagrad"])
def test_the_kernel_updates_by_its_rule(rule: str) -> None:
    order = TablesOrder(dim=4, rule=rule, table_bytes=26 * 8 * 4 * 4, shapes=())
    kernel = table_access._kernel(order, device=CPU)
    before = [weights.clone() for weights in kernel.split_embedding_weights()]
    pooled = kernel(indices=torch.zeros(26, dtype=torch.int64), offsets=torch.arange(27))
    pooled.backward(torch.ones_like(pooled))
    step = {"sgd": 0.01, "adagrad": 0.01 / 1.1**0.5, "rowwise_adagrad": 0.01 / 1.1**0.5}[rule]
    for weights, old in zip(kernel.split_embedding_weights(), before, strict=True):
        torch.testing.assert_close(weights[0], old[0] - step, rtol=0, atol=1e-5)
        assert torch.equal(weights[1:], old[1:])


def test_tables_are_past_the_cache_or_within_it_and_never_too_much_of_the_memory() -> None:
    orders = tables_orders(cache_bytes=16 << 20, rank_bytes=64 << 30, device="cpu", quick=False)
    assert {(order.dim, order.rule) for order in orders["far"]} == {
        (dim, rule) for dim in (8, 16, 32, 64, 128) for rule in ("sgd", "adagrad", "rowwise_adagrad")
    }
    for where, least, most in (("far", 500 << 20, 520 << 20), ("near", 7 << 20, 9 << 20)):
        for order in orders[where]:
            state = 2 if order.rule == "adagrad" else 1
            assert least < 26 * order.rows * order.dim * 4 * state < most
    assert {order.rule for order in tables_orders(cache_bytes=0, rank_bytes=8e9, device="cuda", quick=False)["far"]} > {
        "adam"
    }
    assert "near" not in tables_orders(cache_bytes=0, rank_bytes=8e9, device="cpu", quick=False)
    small = tables_orders(cache_bytes=16 << 20, rank_bytes=1 << 30, device="cpu", quick=False)["far"][0]
    assert small.table_bytes == (1 << 30) / 8


def test_both_passes_of_every_shape_are_measured() -> None:
    order = tables_orders(cache_bytes=1 << 20, rank_bytes=8e9, device="cpu", quick=True)["near"][1]
    points = measure_tables(alone(), order, QUICK)
    assert [point.what for point in points] == ["forward", "adagrad"] * len(order.shapes)
    for point, shape in zip(points[::2], order.shapes, strict=True):
        assert point.size["ids"] == 26 * shape.batch_size * shape.bag_size
        assert 26 <= point.size["distinct"] <= point.size["ids"]
        assert point.mean_seconds > 0
