"""A given plan: the planner's own comes back equal under every placement; a wrong one is refused by what differs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, Literal, get_args

import pytest
from torch import nn
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.types import CacheParams, ShardingPlan
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from configs.ensemble_schema import Placement
from configs.errors import EXIT_REFUSED, ConfigError
from sharding.constraints import TableWish, table_constraints
from sharding.given_plan import given_plan
from sharding.hardware import Hardware
from sharding.plan_files import made_for, plan_json, read_plan
from tests.unit.sharding import world_of_one
from tests.unit.sharding.world_of_one import GIB

SIZES = {"a/C1": (100, 16), "a/C2": (3, 16), "a/C3": (1_000, 32)}
PLACEMENTS = [placement for placement in get_args(Placement) if placement != "auto"]
ROWS_PER_RANK = 8


def module(sizes: dict[str, tuple[int, int]] = SIZES) -> nn.Module:
    tables = EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=name, feature_names=[name.partition("/")[2]], num_embeddings=rows, embedding_dim=dim
            )
            for name, (rows, dim) in sizes.items()
        ],
        device="meta",
    )
    return nn.ModuleDict({"inner": nn.ModuleDict({"tables": tables})})


def hosts(
    world_size: int = 4, *, ranks_per_host: int = 2, device: Literal["cpu", "cuda"] = "cpu", gib: int = 8
) -> Hardware:
    hbm = gib * GIB if device == "cuda" else 0
    return Hardware(
        device=device, world_size=world_size, local_world_size=ranks_per_host, hbm_bytes=hbm, ddr_bytes=gib * GIB
    )


def wishes(
    placement: str, *, device: Literal["cpu", "cuda"] = "cpu", kernel: str = "auto"
) -> dict[str, ParameterConstraints]:
    return table_constraints(
        {
            name: TableWish(
                key="tables.a", num_rows=rows, dim=dim, optimizer="adagrad", placement=placement, kernel=kernel
            )
            for name, (rows, dim) in SIZES.items()
        },
        device=device,
    )


def written(plan: ShardingPlan, hardware: Hardware) -> dict[str, Any]:
    return plan_json(plan, facts=made_for(SIZES, hardware=hardware, rows_per_rank=ROWS_PER_RANK))


def planned(placement: str, hardware: Hardware, **kernel: str) -> tuple[ShardingPlan, dict[str, ParameterConstraints]]:
    constraints = wishes(placement, device=hardware.device, **kernel)
    plan = world_of_one.planned(
        module(), hardware=hardware, constraints=constraints, rows_per_rank=ROWS_PER_RANK, optimizer="adagrad"
    )
    return plan, constraints


def given(
    body: dict[str, Any],
    hardware: Hardware,
    constraints: dict[str, ParameterConstraints],
    *,
    rows_per_rank: int = ROWS_PER_RANK,
    of: nn.Module | None = None,
) -> ShardingPlan:
    file = read_plan(json.dumps(body), path="p.json")
    return given_plan(
        file, module=of or module(), hardware=hardware, constraints=constraints, rows_per_rank=rows_per_rank
    )


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("placement", [*PLACEMENTS, "auto"])
def test_the_planners_own_plan_comes_back_equal(placement: str, device: Literal["cpu", "cuda"]) -> None:
    hardware = hosts(device=device)
    plan, constraints = planned(placement, hardware)
    back = given(written(plan, hardware), hardware, constraints)
    assert back == plan
    assert list(back.plan) == ["inner.tables"]
    first = next(iter(back.plan["inner.tables"].values()))
    if first.sharding_spec is not None:
        last = first.sharding_spec.shards[-1].placement
        assert str(last) == f"rank:{last.rank()}/" + (f"cuda:{last.rank() % 2}" if device == "cuda" else "cpu")


@pytest.mark.parametrize("kernel", ["uvm", "uvm_caching"])
def test_kernels_of_gpu_hosts_come_back(kernel: str) -> None:
    hardware = hosts(device="cuda")
    plan, constraints = planned("row_wise", hardware, kernel=kernel)
    cached = plan.plan["inner.tables"]["a/C1"]
    cached.cache_params = CacheParams(load_factor=0.3)
    assert cached.compute_kernel == f"fused_{kernel}"
    assert given(written(plan, hardware), hardware, constraints) == plan


def test_the_memory_of_the_machine_is_not_asked() -> None:
    plan, constraints = planned("row_wise", hosts())
    assert given(written(plan, hosts()), hosts(gib=64), constraints) == plan


def refusal(of: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as refused:
        of()
    assert refused.value.exit_code == EXIT_REFUSED
    sentence = str(refused.value)
    assert sentence.startswith("run.plan: p.json") and "\n" not in sentence
    assert sentence.endswith(", or leave run.plan empty to plan anew")
    return sentence.removeprefix("run.plan: p.json").removesuffix(", or leave run.plan empty to plan anew")


@pytest.mark.parametrize(
    ("hardware", "rows", "said"),
    [
        (hosts(8), 8, " was made for 4 rank(s), this job has 8; start as many"),
        (hosts(ranks_per_host=4), 8, " was made for 2 rank(s) per host, this job has 4; start as many on each host"),
        (hosts(device="cuda"), 8, " was made for a device of kind cpu, this job has cuda; set run.device to it"),
        (
            hosts(),
            16,
            " was made for 8 rows per rank and step, this job has 16; set train.batch_size to fit, or say that it"
            " serves this one too by writing the new number into its made_for.rows_per_rank and removing its"
            ' "fingerprint" line',
        ),
    ],
)
def test_another_job_is_named(hardware: Hardware, rows: int, said: str) -> None:
    plan, constraints = planned("row_wise", hosts())
    assert refusal(lambda: given(written(plan, hosts()), hardware, constraints, rows_per_rank=rows)) == said


def test_what_another_batch_size_asks_for_is_enough() -> None:
    plan, constraints = planned("row_wise", hosts())
    body = written(plan, hosts())
    body["made_for"]["rows_per_rank"] = 16
    del body["fingerprint"]
    assert given(body, hosts(), constraints, rows_per_rank=16) == plan


def test_other_tables_are_named() -> None:
    plan, constraints = planned("row_wise", hosts())
    body = written(plan, hosts())
    more = module(SIZES | {f"b/C{index}": (10, 4) for index in range(5)})
    assert refusal(lambda: given(body, hosts(), constraints, of=more)) == (
        " was made for other tables: it lacks b/C0, b/C1, b/C2 and 2 more; take the plan of the same members and data"
    )
    fewer = module({"a/C1": (100, 16), "z/C1": (5, 4)})
    assert refusal(lambda: given(body, hosts(), constraints, of=fewer)) == (
        " was made for other tables: it lacks z/C1 and it has a/C2, a/C3 too much;"
        " take the plan of the same members and data"
    )
    less = module({name: SIZES[name] for name in ("a/C1", "a/C2")})
    assert refusal(lambda: given(body, hosts(), constraints, of=less)) == (
        " was made for other tables: it has a/C3 too much; take the plan of the same members and data"
    )
    wider = module({"a/C1": (100, 16), "a/C2": (4, 16), "a/C3": (1_000, 64)})
    assert refusal(lambda: given(body, hosts(), constraints, of=wider)) == (
        " was made for tables of other sizes than this run's: a/C2 has 3 rows x 16 there and 4 x 16 here (and so on"
        " for 1 more); take the plan of the same data and dims"
    )


def test_the_file_must_place_what_it_was_made_for() -> None:
    plan, constraints = planned("row_wise", hosts())
    body = written(plan, hosts())
    del body["fingerprint"], body["tables"]["a/C2"]
    assert refusal(lambda: given(body, hosts(), constraints)) == (
        " places other tables than this run has: it lacks a/C2; take the plan of the same members and data"
    )


def wrong(placement: str, change: Callable[[dict[str, Any]], None], **options: Any) -> str:
    """What is said of table a/C1 once it is changed by hand."""
    hardware = options.pop("hardware", hosts())
    plan, constraints = planned(placement, hardware)
    body = copy.deepcopy(written(plan, hardware))
    del body["fingerprint"]
    change(body["tables"]["a/C1"])
    said = refusal(lambda: given(body, hardware, options.get("constraints", constraints)))
    assert said.startswith(": tables.a/C1.")
    return said.removeprefix(": tables.a/C1.")


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table.update(values)


def put_shard(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda table: table["shards"][index].update(values)


def on_ranks(*ranks: int) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        table["ranks"] = list(ranks)
        for shard, rank in zip(table["shards"], ranks, strict=False):
            shard["rank"] = rank

    return change


KINDS = "data_parallel, table_wise, column_wise, row_wise, table_row_wise, table_column_wise, grid_shard"


def test_placements_and_kernels_that_cannot_be() -> None:
    said = wrong("row_wise", put(sharding_type="diagonal"))
    assert said.startswith("sharding_type: there is no 'diagonal'; choose one of ")
    assert set(said.partition("one of ")[2].split(", ")) == set(KINDS.split(", "))
    assert wrong("row_wise", put(kernel="fused_uvm")) == (
        "kernel: 'fused_uvm' is not what row_wise on cpu can have here; choose fused"
    )
    assert wrong("row_wise", put(kernel="magic")).startswith("kernel: 'magic' is not what ")
    assert wrong("data_parallel", put(kernel="fused")) == (
        "kernel: 'fused' is not what data_parallel on cpu can have here; choose dense"
    )


def test_a_placement_against_the_config_is_refused() -> None:
    assert wrong("row_wise", lambda _: None, constraints=wishes("table_wise")) == (
        "sharding_type: 'row_wise' is not what the config allows for this table, table_wise;"
        " set the table's placement in the config to it"
    )
    # Under row-wise Adagrad column-wise kinds are another optimizer: auto leaves them out, for files too.
    assert wrong("column_wise", lambda _: None, constraints=wishes("auto")).startswith(
        "sharding_type: 'column_wise' is not what the config allows for this table, data_parallel or "
    )


def test_ranks_that_cannot_be() -> None:
    assert wrong("table_wise", on_ranks(4)) == "ranks: there is no rank 4, this job has 0 to 3; name one of those"
    assert wrong("data_parallel", put(ranks=[0, 1])) == "ranks: data_parallel is on all ranks and has no shards"
    assert wrong("table_wise", put(shards=[])) == "shards: none, but table_wise needs them; write them"
    assert wrong("row_wise", put(ranks=[1, 0, 2, 3])) == (
        "ranks: [1, 0, 2, 3] are not those of its shards; write the rank of each shard, in order"
    )
    assert wrong("row_wise", on_ranks(1, 0, 2, 3)) == (
        "ranks: [1, 0, 2, 3], but row_wise goes over all ranks in order; take [0, 1, 2, 3]"
    )
    assert wrong("table_row_wise", on_ranks(1, 2)) == (
        "ranks: [1, 2], but table_row_wise goes over all 2 ranks of a host in order; take them so"
    )
    assert wrong("grid", on_ranks(1, 0, 2, 3, 0, 1, 2, 3)).startswith(
        "ranks: [1, 0, 2, 3, 0, 1, 2, 3], but grid_shard goes over "
    )
    assert wrong("table_column_wise", on_ranks(0, 2, 1, 3)) == (
        "ranks: [0, 2, 1, 3] are of more than one host, but table_column_wise stays on one; take one host's"
    )


def test_shards_that_do_not_make_up_the_table() -> None:
    assert wrong("row_wise", put_shard(3, sizes=[26, 16])) == (
        "shards[3]: ends at row 101 and column 16, outside of 100 rows x 16; cut it there"
    )
    assert wrong("row_wise", put_shard(0, sizes=[26, 16])).startswith("shards: two of them overlap")
    assert wrong("row_wise", put_shard(3, sizes=[24, 16])) == (
        "shards: they cover 1,584 of the 1,600 values of 100 rows x 16; cover all of them"
    )
    assert wrong("table_wise", put_shard(0, sizes=[0, 16])).startswith("shards: two of them overlap, or there is none")


def test_shards_that_ids_would_not_find() -> None:
    def uneven(table: dict[str, Any]) -> None:
        table["shards"][0]["sizes"] = [20, 16]
        table["shards"][1] |= {"offsets": [20, 0], "sizes": [30, 16]}

    assert wrong("row_wise", uneven) == (
        "shards[0]: row_wise cuts it at offsets [0, 0] with sizes [25, 16]; write these"
    )

    def halves(table: dict[str, Any]) -> None:
        table["ranks"] = [0, 1]
        table["shards"] = [{"offsets": [0, at], "sizes": [100, 8], "rank": at // 8} for at in (0, 8)]

    # Pieces of another width are another optimizer under row-wise Adagrad; the config's cut holds.
    assert wrong("column_wise", halves) == (
        "shards[0]: column_wise cuts it at offsets [0, 0] with sizes [100, 4]; write these"
    )
    assert wrong("table_wise", halves) == (
        "shards[0]: table_wise cuts it at offsets [0, 0] with sizes [100, 16]; write these"
    )


def test_an_edit_that_can_be_is_carried_out() -> None:
    plan, constraints = planned("table_wise", hosts())
    body = written(plan, hosts())
    del body["fingerprint"]
    there = body["tables"]["a/C1"]["ranks"][0]
    on_ranks((there + 1) % 4)(body["tables"]["a/C1"])
    back = given(body, hosts(), constraints)
    assert back != plan
    assert back.plan["inner.tables"]["a/C1"].ranks == [(there + 1) % 4]
