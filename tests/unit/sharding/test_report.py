"""PlanReport: bytes held and sent, each added up by hand for every placement."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pytest

from configs.ensemble_schema import Placement
from sharding.constraints import SHARDING_TYPES
from sharding.ledger import PlannedJob, PlannedTable
from sharding.report import PlanReport, report_plan

# Two hosts of two ranks, ten rows each: a pooled row of four columns is 160 bytes of a batch, a bag's three ids and its
# length are 160 too. The table has 128 bytes of weights and, under row-wise Adagrad, 32 of sums.
JOB = PlannedJob(device="cpu", world_size=4, ranks_per_host=2, rows_per_rank=10)
TABLE = PlannedTable(rows=8, dim=4, optimizer="rowwise_adagrad", mean_bag_length=3.0)


def placed(kind: str, *shards: tuple[int, int, int], kernel: str = "fused", **more: Any) -> dict[str, Any]:
    """Shards as (rows, columns, rank)."""
    return {
        "sharding_type": kind,
        "kernel": kernel,
        "shards": [{"offsets": [0, 0], "sizes": [rows, columns], "rank": rank} for rows, columns, rank in shards],
        **more,
    }


def report(plan: dict[str, Any], *, table: PlannedTable = TABLE, job: PlannedJob = JOB) -> PlanReport:
    return report_plan({"a/C1": plan}, tables={"a/C1": table}, job=job)


def not_zero(kinds: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {kind: list(of_ranks) for kind, of_ranks in kinds.items() if any(of_ranks)}


# Placement -> its plan, bytes held, bytes sent, bytes received where they are others than those sent.
CASES: dict[str, tuple[dict[str, Any], dict[str, list[int]], dict[str, list[int]], dict[str, list[int]]]] = {
    "data_parallel": (
        placed("data_parallel", kernel="dense"),
        {
            "table_weights": [128] * 4,
            "table_optimizer": [32] * 4,
            "table_gradients": [128] * 4,
            "id_buffers": [160] * 4,
            "embedding_buffers": [320] * 4,
        },
        {"data_parallel_all_reduce": [3 * 128] * 4},  # gathered whole, to be added in rank order
        {},
    ),
    "table_wise": (
        placed("table_wise", (8, 4, 1)),
        {
            "table_weights": [0, 128, 0, 0],
            "table_optimizer": [0, 32, 0, 0],
            "id_buffers": [160, 160 + 4 * 160, 160, 160],
            "embedding_buffers": [320, 320 + 2 * 4 * 160, 320, 320],
        },
        {
            "ids_all_to_all": [160, 0, 160, 160],
            "pooled_all_to_all": [0, 480, 0, 0],
            "pooled_gradients_all_to_all": [160, 0, 160, 160],
        },
        {
            "ids_all_to_all": [0, 480, 0, 0],
            "pooled_all_to_all": [160, 0, 160, 160],
            "pooled_gradients_all_to_all": [0, 480, 0, 0],
        },
    ),
    "row_wise": (  # a quarter of the rows gets 3/4 of an id of each bag and every bag's length: 70 bytes
        placed("row_wise", (2, 4, 0), (2, 4, 1), (2, 4, 2), (2, 4, 3)),
        {
            "table_weights": [32] * 4,
            "table_optimizer": [8] * 4,
            "id_buffers": [4 * 70 + 4 * 70] * 4,
            "embedding_buffers": [320 + 2 * 4 * 160] * 4,
        },
        {"ids_all_to_all": [3 * 70] * 4, "reduce_scatter": [3 * 160] * 4, "gradients_all_gather": [3 * 160] * 4},
        {},
    ),
    "column_wise": (  # row-wise Adagrad keeps a sum per piece of a row
        placed("column_wise", (8, 2, 0), (8, 2, 2)),
        {
            "table_weights": [64, 0, 64, 0],
            "table_optimizer": [32, 0, 32, 0],
            "id_buffers": [320 + 640, 320, 320 + 640, 320],
            "embedding_buffers": [320 + 2 * 4 * 80, 320, 320 + 2 * 4 * 80, 320],
        },
        {
            "ids_all_to_all": [160, 320, 160, 320],
            "pooled_all_to_all": [240, 0, 240, 0],
            "pooled_gradients_all_to_all": [80, 160, 80, 160],
        },
        {
            "ids_all_to_all": [480, 0, 480, 0],
            "pooled_all_to_all": [80, 160, 80, 160],
            "pooled_gradients_all_to_all": [240, 0, 240, 0],
        },
    ),
    "table_column_wise": (  # three quarters of the columns on one rank of the host
        placed("table_column_wise", (8, 3, 2), (8, 1, 3)),
        {
            "table_weights": [0, 0, 96, 32],
            "table_optimizer": [0, 0, 32, 32],
            "id_buffers": [320, 320, 320 + 640, 320 + 640],
            "embedding_buffers": [320, 320, 320 + 2 * 4 * 120, 320 + 2 * 4 * 40],
        },
        {
            "ids_all_to_all": [320, 320, 160, 160],
            "pooled_all_to_all": [0, 0, 3 * 120, 3 * 40],
            "pooled_gradients_all_to_all": [160, 160, 40, 120],
        },
        {
            "ids_all_to_all": [0, 0, 480, 480],
            "pooled_all_to_all": [160, 160, 40, 120],
            "pooled_gradients_all_to_all": [0, 0, 3 * 120, 3 * 40],
        },
    ),
    "table_row_wise": (  # half of the rows: 100 bytes of ids; sums for two hosts' rows stay within the host
        placed("table_row_wise", (4, 4, 2), (4, 4, 3)),
        {
            "table_weights": [0, 0, 64, 64],
            "table_optimizer": [0, 0, 16, 16],
            "id_buffers": [200, 200, 200 + 400, 200 + 400],
            "embedding_buffers": [320, 320, 320 + 2 * 4 * 160, 320 + 2 * 4 * 160],
        },
        {
            "ids_all_to_all": [200, 200, 100, 100],
            "pooled_all_to_all": [0, 0, 160, 160],
            "pooled_gradients_all_to_all": [160, 160, 0, 0],
            "reduce_scatter": [0, 0, 320, 320],
            "gradients_all_gather": [0, 0, 320, 320],
        },
        {
            "ids_all_to_all": [0, 0, 300, 300],
            "pooled_all_to_all": [160, 160, 0, 0],
            "pooled_gradients_all_to_all": [0, 0, 160, 160],
        },
    ),
    "grid": (  # half of the columns on each host, half of the rows on each of its ranks
        placed("grid_shard", (4, 2, 0), (4, 2, 1), (4, 2, 2), (4, 2, 3)),
        {
            "table_weights": [32] * 4,
            "table_optimizer": [16] * 4,
            "id_buffers": [4 * 100 + 4 * 100] * 4,
            "embedding_buffers": [320 + 2 * 4 * 80] * 4,
        },
        {
            "ids_all_to_all": [300] * 4,
            "pooled_all_to_all": [80] * 4,
            "pooled_gradients_all_to_all": [80] * 4,
            "reduce_scatter": [160] * 4,
            "gradients_all_gather": [160] * 4,
        },
        {},
    ),
}


def test_every_placement_has_its_case() -> None:
    assert set(CASES) == set(get_args(Placement)) - {"auto"}
    assert {name: plan["sharding_type"] for name, (plan, *_) in CASES.items()} == {
        name: kind.value for name, kind in SHARDING_TYPES.items()
    }


@pytest.mark.parametrize("placement", CASES)
def test_bytes_by_hand(placement: str) -> None:
    plan, held, sent, received = CASES[placement]
    found = report(plan)
    assert not_zero(found.bytes_per_rank) == held
    assert not_zero(found.sent_bytes_per_rank) == sent
    assert not_zero(found.received_bytes_per_rank) == sent | received
    assert found.held == tuple(map(sum, zip(*held.values(), strict=True)))
    assert found.sent == tuple(map(sum, zip(*sent.values(), strict=True)))
    assert found.tables_per_sharding_type == {plan["sharding_type"]: 1}


@pytest.mark.parametrize("placement", CASES)
def test_what_is_sent_is_received(placement: str) -> None:
    found = report(CASES[placement][0])
    for kind, sent in found.sent_bytes_per_rank.items():
        assert sum(sent) == sum(found.received_bytes_per_rank[kind]), kind


@pytest.mark.parametrize("placement", CASES)
def test_scoring_has_no_way_back(placement: str) -> None:
    plan, held, sent, _ = CASES[placement]
    found = report(plan, job=dataclasses.replace(JOB, purpose="score"))
    forward = ("ids_all_to_all", "pooled_all_to_all", "reduce_scatter")
    assert not_zero(found.sent_bytes_per_rank) == {kind: of for kind, of in sent.items() if kind in forward}
    halved = [count // 2 for count in held["embedding_buffers"]]
    assert not_zero(found.bytes_per_rank) == {
        "table_weights": held["table_weights"],
        "id_buffers": held["id_buffers"],
        "embedding_buffers": halved,
    }


@pytest.mark.parametrize("placement", CASES)
def test_one_rank_sends_nothing(placement: str) -> None:
    plan = placed(CASES[placement][0]["sharding_type"], (8, 4, 0))
    alone = dataclasses.replace(JOB, world_size=1, ranks_per_host=1, dense_parameters={"adam": 5})
    found = report(plan, job=alone)
    assert (found.sent, found.received) == ((0,), (0,))
    assert "moved in a step" not in found.table()


@pytest.mark.parametrize(("rule", "of_shard"), [("sgd", 0), ("rowwise_adagrad", 4 * 6), ("adagrad", 48), ("adam", 96)])
def test_optimizer_state_by_rule(rule: str, of_shard: int) -> None:
    table = dataclasses.replace(TABLE, optimizer=rule)
    found = report(placed("column_wise", (6, 2, 3)), table=table)
    assert found.bytes_per_rank["table_optimizer"] == (0, 0, 0, of_shard)


@pytest.mark.parametrize(
    ("device", "world_size", "sent"), [("cuda", 4, 2 * 3 * 128 // 4), ("cpu", 2, 128), ("cpu", 3, 2 * 128)]
)
def test_data_parallel_gradients(device: str, world_size: int, sent: int) -> None:
    job = PlannedJob(device=device, world_size=world_size, ranks_per_host=world_size, rows_per_rank=10)
    found = report(placed("data_parallel", kernel="dense"), job=job)
    assert found.sent_bytes_per_rank["data_parallel_all_reduce"] == (sent,) * world_size


@pytest.mark.parametrize(
    ("rule", "world_size", "held", "sent"),
    [("adam", 4, [400, 800, 800], 600), ("adagrad", 2, [400, 800, 400], 400), ("sgd", 1, [400, 400, 0], 0)],
)
def test_dense_parameters(rule: str, world_size: int, held: list[int], sent: int) -> None:
    job = PlannedJob(
        device="cpu",
        world_size=world_size,
        ranks_per_host=1,
        rows_per_rank=1,
        dense_parameters={rule: 100},
    )
    found = report_plan({}, tables={}, job=job)
    kinds = ("dense_weights", "dense_gradients", "dense_optimizer")
    assert [found.bytes_per_rank[kind] for kind in kinds] == [(count,) * world_size for count in held]
    assert found.sent == (sent,) * world_size


@pytest.mark.parametrize(
    ("kernel", "more", "cache"),
    [("fused_uvm", {}, 0), ("fused_uvm_caching", {}, 26), ("fused_uvm_caching", {"cache_load_factor": 0.5}, 64)],
)
def test_tables_in_host_memory_are_not_in_the_total(kernel: str, more: dict[str, float], cache: int) -> None:
    on_gpu = report(placed("table_wise", (8, 4, 0)))
    found = report(placed("table_wise", (8, 4, 0), kernel=kernel, **more))
    assert found.bytes_per_rank["host_tables"] == (128 + 32, 0, 0, 0)
    assert found.bytes_per_rank["table_weights"] == found.bytes_per_rank["table_optimizer"] == (0, 0, 0, 0)
    assert found.bytes_per_rank["table_cache"] == (cache, 0, 0, 0)
    assert found.held[0] == on_gpu.held[0] - 128 - 32 + cache


def test_a_bag_has_one_id_unless_said() -> None:
    one = PlannedTable(rows=8, dim=4, optimizer="sgd")
    assert report(placed("table_wise", (8, 4, 1)), table=one).sent_bytes_per_rank["ids_all_to_all"] == (80, 0, 80, 80)


def test_tables_add_up() -> None:
    plans = {"a/C1": CASES["table_wise"][0], "a/C2": CASES["row_wise"][0], "b/C1": CASES["table_wise"][0]}
    found = report_plan(plans, tables=dict.fromkeys(plans, TABLE), job=JOB)
    assert found.tables_per_sharding_type == {"row_wise": 1, "table_wise": 2}
    assert found.bytes_per_rank["table_weights"] == (32, 2 * 128 + 32, 32, 32)
    assert found.sent_bytes_per_rank["ids_all_to_all"] == (2 * 160 + 210, 210, 2 * 160 + 210, 2 * 160 + 210)


def test_the_share_of_tables_split_by_rows_is_of_columns_and_leaves_replicas_out() -> None:
    tables = {"a": TABLE, "b": dataclasses.replace(TABLE, dim=12), "c": dataclasses.replace(TABLE, dim=100)}
    plans = {
        "a": placed("row_wise", *[(2, 4, rank) for rank in range(4)]),
        "b": placed("table_wise", (8, 12, 0)),
        "c": placed("data_parallel", kernel="dense"),
    }
    assert report_plan(plans, tables=tables, job=JOB).row_wise_share == 4 / 16
    assert report_plan({"c": plans["c"]}, tables=tables, job=JOB).row_wise_share == 0


def by_hand(*held: int, sent: Sequence[int] = (0, 0)) -> PlanReport:
    return PlanReport(
        job=JOB,
        tables_per_sharding_type={"row_wise": 2, "data_parallel": 1},
        bytes_per_rank={"table_weights": held, "host_tables": (7,) * len(held)},
        sent_bytes_per_rank={"ids_all_to_all": tuple(sent)},
        received_bytes_per_rank={"ids_all_to_all": tuple(sent[::-1])},
    )


def test_imbalance_is_the_fullest_rank_over_the_mean() -> None:
    assert by_hand(30, 10, 20).imbalance == pytest.approx(1.5)
    assert by_hand(7, 7).imbalance == 1.0
    assert by_hand(0, 0).imbalance == 1.0


def test_the_report_is_plain_values_and_a_short_table() -> None:
    found = by_hand(3 * 2**20, 2**20, sent=(2**30, 500))
    assert found.sentence() == (
        "plan: 1 data_parallel, 2 row_wise tables; 3.0 MiB on the fullest rank, 1.50 x the mean;"
        " 1.0 GiB sent by the busiest a step"
    )
    assert found.table().splitlines() == [
        found.sentence(),
        "  held by a rank                        mean        most   most/mean",
        "    table_weights                    2.0 MiB     3.0 MiB        1.50",
        "    host_tables                      7 bytes     7 bytes        1.00",
        "    in all                           2.0 MiB     3.0 MiB        1.50",
        "  moved in a step                       mean   most sent    most got",
        "    ids_all_to_all                 512.0 MiB     1.0 GiB     1.0 GiB",
        "    in all                         512.0 MiB     1.0 GiB     1.0 GiB",
    ]
    assert json.loads(json.dumps(found.as_json())) == {
        "tables_per_sharding_type": {"row_wise": 2, "data_parallel": 1},
        "row_wise_share": 0.0,
        "bytes_per_rank": {"table_weights": [3 * 2**20, 2**20], "host_tables": [7, 7]},
        "sent_bytes_per_rank": {"ids_all_to_all": [2**30, 500]},
        "received_bytes_per_rank": {"ids_all_to_all": [500, 2**30]},
        "sent_to_hosts_per_rank": {},
        "imbalance": {
            "held": 1.5,
            "table_weights": 1.5,
            "sent": pytest.approx(2**30 / ((2**30 + 500) / 2)),
            "received": pytest.approx(2**30 / ((2**30 + 500) / 2)),
        },
    }
