"""Ledger: what crosses to other hosts and what each rank looks up, by hand for every placement."""

from __future__ import annotations

import dataclasses

import pytest

from sharding.ledger import PlannedTable, dense_bytes
from tests.unit.sharding.test_report import CASES, JOB, TABLE, not_zero, placed, report

# Placement -> bytes sent to the other host: of all_to_all by pairs of ranks; of a ring all that rank 1 and rank 3 send.
ELSEWHERE: dict[str, dict[str, list[int]]] = {
    "data_parallel": {"data_parallel_all_reduce": [0, 384, 0, 384]},
    "table_wise": {
        "ids_all_to_all": [0, 0, 160, 160],
        "pooled_all_to_all": [0, 320, 0, 0],
        "pooled_gradients_all_to_all": [0, 0, 160, 160],
    },
    "row_wise": {
        "ids_all_to_all": [140] * 4,
        "reduce_scatter": [0, 480, 0, 480],
        "gradients_all_gather": [0, 480, 0, 480],
    },
    "column_wise": {
        "ids_all_to_all": [160] * 4,
        "pooled_all_to_all": [160, 0, 160, 0],
        "pooled_gradients_all_to_all": [80] * 4,
    },
    "table_column_wise": {
        "ids_all_to_all": [320, 320, 0, 0],
        "pooled_all_to_all": [0, 0, 240, 80],
        "pooled_gradients_all_to_all": [160, 160, 0, 0],
    },
    "table_row_wise": {
        "ids_all_to_all": [200, 200, 0, 0],
        "pooled_all_to_all": [0, 0, 160, 160],
        "pooled_gradients_all_to_all": [160, 160, 0, 0],
    },
    "grid": {
        "ids_all_to_all": [200] * 4,
        "pooled_all_to_all": [80] * 4,
        "pooled_gradients_all_to_all": [80] * 4,
    },
}


@pytest.mark.parametrize("placement", CASES)
def test_what_goes_to_other_hosts(placement: str) -> None:
    found = report(CASES[placement][0])
    assert not_zero(found.sent_to_hosts_per_rank) == ELSEWHERE[placement]
    for kind, by_link in found.sent_by_link.items():
        both = [sum(of_rank) for of_rank in zip(by_link["intra_host"], by_link["inter_host"], strict=True)]
        assert both == list(found.sent_bytes_per_rank[kind])
        assert min(by_link["intra_host"]) >= 0


@pytest.mark.parametrize("placement", CASES)
def test_one_host_sends_nothing_elsewhere(placement: str) -> None:
    job = dataclasses.replace(JOB, ranks_per_host=4)
    plan = placed("row_wise", *[(2, 4, rank) for rank in range(4)]) if placement == "grid" else CASES[placement][0]
    assert not_zero(report(plan, job=job).sent_to_hosts_per_rank) == {}


def test_gpus_share_what_a_ring_sends_out_of_a_host() -> None:
    job = dataclasses.replace(JOB, device="cuda", dense_parameters={"sgd": 80})
    found = report(CASES["row_wise"][0], job=job)
    assert found.sent_to_hosts_per_rank["reduce_scatter"] == (240,) * 4
    assert found.sent_bytes_per_rank["dense_all_reduce"] == (480,) * 4
    assert found.sent_to_hosts_per_rank["dense_all_reduce"] == (240,) * 4


# Placement -> (rank, rows, columns, ids) of each load: 40 bags of 3 ids, of which a shard has its share of the rows.
LOADS = {
    "data_parallel": [(rank, 8, 4, 30) for rank in range(4)],
    "table_wise": [(1, 8, 4, 120)],
    "row_wise": [(rank, 2, 4, 30) for rank in range(4)],
    "column_wise": [(0, 8, 2, 120), (2, 8, 2, 120)],
    "table_column_wise": [(2, 8, 3, 120), (3, 8, 1, 120)],
    "table_row_wise": [(2, 4, 4, 60), (3, 4, 4, 60)],
    "grid": [(rank, 4, 2, 60) for rank in range(4)],
}


@pytest.mark.parametrize("placement", CASES)
def test_what_ranks_look_up(placement: str) -> None:
    plan = CASES[placement][0]
    found = report(plan).lookups
    assert [(load.rank, load.rows, load.columns, load.ids) for load in found] == LOADS[placement]
    assert {(load.table, load.rule, load.sharding_type, load.kernel) for load in found} == {
        ("a/C1", "rowwise_adagrad", plan["sharding_type"], plan["kernel"])
    }
    assert {load.bags for load in found} == {10 if placement == "data_parallel" else 40}
    columns = {load.columns for load in found}
    assert sum(load.ids * load.columns for load in found) == 120 * 4, columns


def test_a_shard_without_rows_is_no_load() -> None:
    found = report(placed("row_wise", (4, 4, 0), (4, 4, 1), (0, 4, 2), (0, 4, 3))).lookups
    assert [load.rank for load in found] == [0, 1]


def test_a_quantised_table_has_its_own_bytes() -> None:
    table = dataclasses.replace(TABLE, row_bytes=8)
    found = report(placed("data_parallel", kernel="dense"), table=table, job=dataclasses.replace(JOB, purpose="score"))
    assert not_zero(found.bytes_per_rank) == {
        "table_weights": [64] * 4,
        "id_buffers": [160] * 4,
        "embedding_buffers": [160] * 4,  # what comes out is float32 all the same
    }
    with pytest.raises(AssertionError, match="not sharded"):
        report(placed("table_wise", (8, 4, 0)), table=table)


@pytest.mark.parametrize(("world_size", "held"), [(1, 400 + 400 + 800), (2, 400 + 800 + 800)])
def test_dense_bytes_are_what_the_report_holds(world_size: int, held: int) -> None:
    job = dataclasses.replace(
        JOB, world_size=world_size, ranks_per_host=1, dense_parameters={"adam": 80, "adagrad": 20}
    )
    state = 8 * 80 + 4 * 20
    assert dense_bytes(job) == held - 800 + state
    assert dense_bytes(dataclasses.replace(job, keeps_best=True)) == held - 800 + state + 400
    assert dense_bytes(dataclasses.replace(job, purpose="score")) == 400


def test_early_stop_keeps_all_weights_once_more() -> None:
    job = dataclasses.replace(JOB, keeps_best=True, dense_parameters={"sgd": 5})
    found = report(placed("table_wise", (8, 4, 1)), table=PlannedTable(rows=8, dim=4, optimizer="sgd"), job=job)
    assert found.bytes_per_rank["best_weights"] == (20, 148, 20, 20)
