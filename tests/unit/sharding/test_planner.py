"""Planning without processes: the same plan each time, and one sentence where nothing fits."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from configs.errors import EXIT_NOTHING_FITS, PlanError
from sharding.plan_files import plan_tables_json
from sharding.planner import plan_tables
from tests.unit.sharding.world_of_one import constraints_of, cpu_hosts, two_member_specs, two_member_task


def test_a_plan_for_many_ranks_needs_one_process() -> None:
    specs = two_member_specs()
    constraints = constraints_of(two_member_task(specs), {table.name: "row_wise" for table in specs})
    plans = [
        plan_tables_json(
            plan_tables(two_member_task(specs), hardware=cpu_hosts(4), constraints=constraints, rows_per_rank=8)
        )
        for _ in range(2)
    ]
    assert plans[0] == plans[1]
    for table in specs:
        placed = plans[0][table.name]
        assert placed["ranks"] == [0, 1, 2, 3]
        assert sum(shard["sizes"][0] for shard in placed["shards"]) == table.num_rows


def test_offline_and_collective_plans_agree(group: dist.ProcessGroup) -> None:
    specs = two_member_specs()
    constraints = constraints_of(two_member_task(specs), {table.name: "auto" for table in specs})
    offline, collective = (
        plan_tables_json(
            plan_tables(
                two_member_task(specs),
                hardware=cpu_hosts(),
                constraints=constraints,
                rows_per_rank=8,
                process_group=process_group,
            )
        )
        for process_group in (None, group)
    )
    assert offline == collective


def test_tables_that_do_not_fit_are_refused_in_one_sentence() -> None:
    specs = two_member_specs()
    with pytest.raises(PlanError) as refused:
        plan_tables(
            two_member_task(specs),
            hardware=cpu_hosts(2, ddr_bytes=1_000),
            constraints=constraints_of(two_member_task(specs), {table.name: "auto" for table in specs}),
            rows_per_rank=8,
        )
    sentence = str(refused.value)
    assert sentence.startswith(
        "the tables do not fit 2 x cpu (0 bytes of GPU and 1,000 of host memory a rank):"
        " lower tables.*.dim, give members shared tables, or add ranks (the planner said: "
    )
    assert "\n" not in sentence
    assert refused.value.exit_code == EXIT_NOTHING_FITS == 3
