"""Constraints: what each wish lets the planner choose from, how columns are cut, and what is refused."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from torch import nn

from configs.ensemble_schema import COLUMN_PLACEMENTS, Kernel, Placement
from configs.errors import ConfigError
from modules.tables import build_tables
from sharding.constraints import KERNELS, SHARDING_TYPES, TableWish, piece_columns, table_constraints
from sharding.hardware import Hardware
from sharding.plan_files import plan_tables_json
from tests.unit.modules.small import spec
from tests.unit.sharding.world_of_one import planned

GIB = 2**30


def wish(**changes: Any) -> TableWish:
    """A table of 11 rows x 16 without a wish of its own."""
    values: dict[str, Any] = {"key": "tables.a", "num_rows": 11, "dim": 16, "optimizer": "adagrad"}
    return TableWish(**{**values, **changes})


def refusal(device: Any, **changes: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        table_constraints({"a/C1": wish(**changes)}, device=device)
    return str(refused.value)


def plan_of(tables: dict[str, TableWish], *, hardware: Hardware) -> dict[str, Any]:
    specs = [spec("a", name, num_rows=wished.num_rows, dim=wished.dim) for name, wished in tables.items()]
    constraints = table_constraints({f"a/{name}": wished for name, wished in tables.items()}, device=hardware.device)
    module = nn.Sequential(build_tables(specs, device="meta"))
    return plan_tables_json(planned(module, hardware=hardware, constraints=constraints))


def test_every_name_of_the_config_is_known() -> None:
    assert set(SHARDING_TYPES) == {*get_args(Placement)} - {"auto"}
    assert set(KERNELS) == {*get_args(Kernel)} - {"auto"}
    assert SHARDING_TYPES["grid"].value == "grid_shard"


def test_a_placement_leaves_one_choice_and_auto_leaves_three() -> None:
    wishes = {"a/C1": wish(placement="row_wise"), "a/C2": wish(), "b/C1": wish(placement="grid")}
    found = table_constraints(wishes, device="cpu")
    assert {table: one.sharding_types for table, one in found.items()} == {
        "a/C1": ["row_wise"],
        "a/C2": ["data_parallel", "table_wise", "row_wise"],
        "b/C1": ["grid_shard"],
    }


def test_bags_count_with_their_mean_length() -> None:
    found = table_constraints({"a/C1": wish(mean_ids=2.5), "a/C2": wish()}, device="cpu")
    assert [one.pooling_factors for one in found.values()] == [[2.5], [1.0]]


@pytest.mark.parametrize(
    ("host_memory", "kernels"),
    [(True, ["dense", "fused", "fused_uvm", "fused_uvm_caching"]), (False, ["dense", "fused"])],
)
def test_auto_may_mean_host_memory_only_where_that_is_allowed(host_memory: bool, kernels: list[str]) -> None:
    wishes = {"a/C1": wish(), "a/C2": wish(kernel="uvm")}
    auto, told = table_constraints(wishes, device="cuda", host_memory=host_memory).values()
    assert auto.compute_kernels == kernels
    assert told.compute_kernels == ["dense", "fused_uvm"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
def test_column_wise_is_never_chosen_silently(device: Any, optimizer: str) -> None:
    (found,) = table_constraints({"a/C1": wish(optimizer=optimizer)}, device=device).values()
    assert found.sharding_types and found.min_partition is None
    assert not [kind for kind in found.sharding_types if "column" in kind or "grid" in kind]


@pytest.mark.parametrize(
    ("dim", "columns"),
    [(4, 4), (8, 4), (12, 4), (16, 4), (20, 4), (24, 8), (28, 4), (32, 8), (40, 20), (64, 16), (100, 20), (128, 32)],
)
def test_how_columns_are_cut(dim: int, columns: int) -> None:
    assert piece_columns(dim) == columns


@pytest.mark.parametrize("dim", range(8, 260, 4))
def test_pieces_are_whole_vectors_and_more_than_one(dim: int) -> None:
    columns = piece_columns(dim)
    assert dim % columns == columns % 4 == 0 and columns < dim


@pytest.mark.parametrize(("world_size", "local_world_size"), [(1, 1), (2, 2), (2, 1), (4, 2), (8, 4)])
def test_the_planner_obeys_and_cuts_alike_on_any_ranks(world_size: int, local_world_size: int) -> None:
    tables = {
        f"C{index}": wish(placement=placement, dim=dim)
        for index, (placement, dim) in enumerate((p, d) for p in SHARDING_TYPES for d in (8, 12, 16, 20, 64))
    }
    hardware = Hardware(
        device="cpu", world_size=world_size, local_world_size=local_world_size, hbm_bytes=0, ddr_bytes=GIB
    )
    for name, placed in plan_of(tables, hardware=hardware).items():
        wished = tables[name.removeprefix("a/")]
        assert placed["sharding_type"] == SHARDING_TYPES[wished.placement].value
        assert placed["kernel"] == ("dense" if wished.placement == "data_parallel" else "fused")
        starts = sorted({shard["offsets"][1] for shard in placed["shards"]})
        if wished.placement in COLUMN_PLACEMENTS:
            assert starts == list(range(0, wished.dim, piece_columns(wished.dim)))
        else:
            assert starts in ([0], [])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_planner_obeys_a_kernel_of_a_gpu(kernel: str) -> None:
    hardware = Hardware(device="cuda", world_size=4, local_world_size=4, hbm_bytes=GIB, ddr_bytes=GIB)
    tables = {
        f"C{index}": wish(placement=placement, kernel=kernel)
        for index, placement in enumerate(["auto", *SHARDING_TYPES])
        if placement != "data_parallel"
    }
    found = {placed["kernel"] for placed in plan_of(tables, hardware=hardware).values()}
    assert found - {"dense"} == {KERNELS[kernel].value}
    assert kernel == "fused" or "dense" not in found  # a copy on every rank lies in GPU memory


def test_auto_takes_host_memory_where_a_gpu_has_too_little() -> None:
    hardware = Hardware(device="cuda", world_size=2, local_world_size=2, hbm_bytes=GIB, ddr_bytes=64 * GIB)
    small, large = wish(), wish(num_rows=100_000_000)
    found = plan_of({"C1": small, "C2": large}, hardware=hardware)
    assert found["a/C1"]["kernel"] in ("fused", "dense")
    assert found["a/C2"]["kernel"] in ("fused_uvm", "fused_uvm_caching")


@pytest.mark.parametrize("kernel", ["uvm", "uvm_caching"])
def test_a_cpu_job_has_host_memory_only(kernel: str) -> None:
    assert refusal("cpu", kernel=kernel) == (
        f"tables.a: kernel '{kernel}' of table a/C1 is for GPU hosts, and a CPU job has host memory only;"
        " take 'auto', or run on GPUs"
    )
    assert refusal("cuda", kernel=kernel, placement="data_parallel") == (
        f"tables.a: kernel '{kernel}' of table a/C1 does not go with placement 'data_parallel', whose copies lie in GPU"
        " memory; take kernel 'auto', or another placement"
    )


@pytest.mark.parametrize("placement", COLUMN_PLACEMENTS)
def test_four_columns_are_not_split_silently(placement: str) -> None:
    assert refusal("cpu", placement=placement, dim=4) == (
        f"tables.a: placement '{placement}' of table a/C1 splits columns into pieces of a multiple of 4, and the table"
        " has 4; take dim = 8 or more, or another placement"
    )


def test_a_grid_of_one_row_is_refused() -> None:
    assert refusal("cuda", placement="grid", num_rows=1) == (
        "tables.a: placement 'grid' of table a/C1 cuts rows too, and the table has 1; take 'column_wise' or"
        " 'table_wise' for it, as features.NAME.placement"
    )


@pytest.mark.parametrize("placement", [name for name in SHARDING_TYPES if name != "data_parallel"])
def test_adam_on_cpu_is_data_parallel_or_refused(placement: str) -> None:
    (found,) = table_constraints({"a/C1": wish(optimizer="adam")}, device="cpu").values()
    assert (found.sharding_types, found.compute_kernels) == (["data_parallel"], ["dense", "fused"])
    assert refusal("cpu", optimizer="adam", placement=placement) == (
        f"tables.a: placement '{placement}' of table a/C1 needs a GPU with optimizer 'adam', which no CPU kernel has;"
        " take 'data_parallel' or 'auto', another optimizer, or run on GPUs"
    )
    (found,) = table_constraints({"a/C1": wish(optimizer="adam", placement=placement)}, device="cuda").values()
    assert found.sharding_types == [SHARDING_TYPES[placement].value]


def test_a_word_that_is_no_placement_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError, match="somewhere"):
        table_constraints({"a/C1": wish(placement="somewhere")}, device="cpu")
