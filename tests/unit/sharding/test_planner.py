"""Planning without processes: the same plan each time, GPU memory first, and one sentence where nothing fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from configs.errors import EXIT_NOTHING_FITS
from modules.tables import build_tables
from sharding.constraints import TableWish, table_constraints
from sharding.hardware import Hardware
from sharding.ledger import PlannedJob, PlannedTable
from sharding.plan_files import plan_tables_json
from sharding.planner import plan_tables
from sharding.table_choices import TablesDoNotFitError
from tests.unit.modules.small import spec
from tests.unit.sharding.world_of_one import constraints_of, cpu_hosts, planned, two_member_specs, two_member_task

GIB = 2**30
MILLION_ROWS = PlannedTable(rows=1_000_000, dim=64, optimizer="adagrad")  # 488 MiB with its state
GPUS = Hardware(device="cuda", world_size=4, local_world_size=4, hbm_bytes=GIB, ddr_bytes=64 * GIB)


def plan_of(
    tables: Mapping[str, PlannedTable],
    *,
    hardware: Hardware = GPUS,
    extra_bytes: int = 0,
    placement: str = "auto",
    **job: Any,
) -> dict[str, Any]:
    """The plan of tables a/C1, a/C2 ... that may be anywhere."""
    specs = [spec("a", name.removeprefix("a/"), num_rows=t.rows, dim=t.dim) for name, t in tables.items()]
    wishes = {
        name: TableWish(
            key="tables.a",
            num_rows=t.rows,
            dim=t.dim,
            optimizer=t.optimizer,
            placement=placement,
            mean_ids=t.mean_bag_length,
        )
        for name, t in tables.items()
    }
    plan = plan_tables(
        nn.Sequential(build_tables(specs, device="meta")),
        hardware=hardware,
        constraints=table_constraints(wishes, device=hardware.device),
        tables=tables,
        job=PlannedJob(
            device=hardware.device,
            world_size=hardware.world_size,
            ranks_per_host=hardware.local_world_size,
            rows_per_rank=job.pop("rows_per_rank", 64),
            **job,
        ),
        extra_bytes=extra_bytes,
    )
    return plan_tables_json(plan)


def million(count: int) -> dict[str, PlannedTable]:
    return {f"a/C{number}": MILLION_ROWS for number in range(count)}


def test_a_plan_for_many_ranks_needs_one_process() -> None:
    specs = two_member_specs()
    constraints = constraints_of(two_member_task(specs), {table.name: "row_wise" for table in specs})
    plans = [
        plan_tables_json(planned(two_member_task(specs), hardware=cpu_hosts(4), constraints=constraints))
        for _ in range(2)
    ]
    assert plans[0] == plans[1]
    for table in specs:
        placed = plans[0][table.name]
        assert placed["ranks"] == [0, 1, 2, 3]
        assert sum(shard["sizes"][0] for shard in placed["shards"]) == table.num_rows


def test_gpu_memory_comes_first() -> None:
    """Six tables, and room for one on each of four GPUs: two are cut into rows.

    TorchRec, offered all kernels at once, takes two into host memory rather than send partial sums between hosts.
    """
    plan = plan_of(million(6), hardware=dataclasses.replace(GPUS, local_world_size=2))
    assert {table["kernel"] for table in plan.values()} == {"fused"}
    assert {table["sharding_type"] for table in plan.values()} == {"table_wise", "row_wise"}


def test_host_memory_where_gpus_have_too_little() -> None:
    kernels = {table["kernel"] for table in plan_of(million(10)).values()}
    assert kernels & {"fused_uvm", "fused_uvm_caching"}


def test_what_else_a_rank_holds_is_left_free() -> None:
    """A table of 488 MiB fits the 870 MiB that the reserve leaves of a GPU, once; not beside 500 MiB of others."""
    one = million(1)
    gpu = dataclasses.replace(GPUS, world_size=1, local_world_size=1, ddr_bytes=0)
    assert plan_of(one, hardware=gpu)
    parameters = 500 * 2**20 // 8  # weights and gradients
    for taken in ({"extra_bytes": 500 * 2**20}, {"dense_parameters": {"sgd": parameters}}, {"keeps_best": True}):
        crowded = {"a/C0": dataclasses.replace(MILLION_ROWS, rows=1_400_000)} if "keeps_best" in taken else one
        assert plan_of(crowded, hardware=gpu)
        with pytest.raises(TablesDoNotFitError):
            plan_of(crowded, hardware=gpu, **taken)
    half = dataclasses.replace(gpu, reserve_share=0.5)
    assert plan_of(one, hardware=half)
    with pytest.raises(TablesDoNotFitError):
        plan_of(one, hardware=dataclasses.replace(gpu, reserve_share=0.55))


def test_bags_count() -> None:
    """A batch's ids of long bags are memory too."""
    gpu = dataclasses.replace(GPUS, world_size=1, local_world_size=1, ddr_bytes=0)
    long = {"a/C0": dataclasses.replace(MILLION_ROWS, mean_bag_length=10_000.0)}
    assert plan_of(million(1), hardware=gpu, rows_per_rank=10_000)
    with pytest.raises(TablesDoNotFitError):
        plan_of(long, hardware=gpu, rows_per_rank=10_000)


def refusal(tables: Mapping[str, PlannedTable], **keys: Any) -> TablesDoNotFitError:
    with pytest.raises(TablesDoNotFitError) as refused:
        plan_of(tables, **keys)
    assert refused.value.exit_code == EXIT_NOTHING_FITS == 3
    assert "\n" not in str(refused.value)
    return refused.value


def test_too_much_in_all() -> None:
    error = refusal(million(10), hardware=dataclasses.replace(GPUS, ddr_bytes=0))
    assert str(error) == (
        "the tables do not fit 4 x cuda: with optimizer state and buffers they take at least 4.8 GiB, 1.2 GiB a rank,"
        " and a rank has 870.1 MiB for tables (1.0 GiB less 15% in reserve and 325.0 KiB for members, batches and what"
        " else is not a table) and 0 bytes of host memory; lower tables.*.dim, take tables.*.optimizer ="
        ' "rowwise_adagrad", give members shared tables, or add ranks'
    )
    assert error.table is None
    assert error.need_bytes > 1.19 * GIB > error.capacity_bytes > 0.8 * GIB


def test_a_table_that_is_too_large_is_named() -> None:
    tables = million(1) | {"a/C1": dataclasses.replace(MILLION_ROWS, rows=3_000_000)}
    error = refusal(tables, hardware=cpu_hosts(4, ddr_bytes=GIB), placement="table_wise")
    assert str(error) == (
        "the tables do not fit 4 x cpu: a/C1 takes at least 1.4 GiB of a rank as table_wise, and a rank has 870.3 MiB"
        " for tables (1.0 GiB less 15% in reserve and 65.0 KiB for members, batches and what else is not a table); let"
        ' tables.*.features.C1.placement be "row_wise", lower tables.*.dim, or add ranks'
    )
    assert error.table == "a/C1"
    assert plan_of(tables, hardware=cpu_hosts(4, ddr_bytes=GIB))["a/C1"]["sharding_type"] == "row_wise"


def test_nothing_left_for_tables() -> None:
    error = refusal(million(1), hardware=cpu_hosts(2, ddr_bytes=GIB), extra_bytes=GIB)
    assert str(error) == (
        "the tables do not fit 2 x cpu: nothing of a rank is left for them (1.0 GiB less 15% in reserve and 1.0 GiB for"
        " members, batches and what else is not a table); lower the batch, or take smaller members"
    )


def test_tables_that_cannot_be_spread_evenly() -> None:
    """Three tables of more than half a GPU on two GPUs, each to lie whole on one."""
    gpus = dataclasses.replace(GPUS, world_size=2, local_world_size=2, ddr_bytes=0)
    assert "which no spread that was tried puts into the room of every rank" in str(
        refusal(million(3), hardware=gpus, placement="table_wise")
    )
