"""TaskPlan: the planner's or a file's, with the report of the very job."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.training_schema import Dense
from tests.unit.sharding.world_of_one import two_member_specs, two_member_task
from trainer.runtime import Runtime
from trainer.task_plan import TaskPlan, plan_task


def planned(runtime: Runtime, *, dense: Dense | None = None, path: str = "") -> TaskPlan:
    specs = two_member_specs()
    return plan_task(two_member_task(specs), specs, rows_per_rank=8, dense=dense, path=path, runtime=runtime)


def test_a_plan_and_the_file_of_it_are_one(tmp_path: Path, runtime: Runtime) -> None:
    own = planned(runtime)
    (tmp_path / "plan.json").write_text(json.dumps(own.as_json))
    given = planned(runtime, path=str(tmp_path / "plan.json"))
    assert given == own
    assert own.as_json["report"] == own.report.as_json()
    assert own.as_json["made_for"]["tables"] == {
        spec.name: [spec.num_rows, spec.dim] for spec in sorted(two_member_specs(), key=lambda spec: spec.name)
    }


def test_the_report_is_of_this_job(runtime: Runtime) -> None:
    trained, scored = planned(runtime, dense=Dense(optimizer="adam")).report, planned(runtime).report
    parameters = sum(p.numel() for p in two_member_task(two_member_specs()).ensemble.bank.parameters())
    assert trained.bytes_per_rank["dense_weights"] == scored.bytes_per_rank["dense_weights"] == (4 * parameters,)
    assert trained.bytes_per_rank["dense_optimizer"] == (8 * parameters,)
    sums = 4 * sum(spec.num_rows for spec in two_member_specs())
    assert trained.bytes_per_rank["table_optimizer"] == (sums,)
    for kind in ("dense_gradients", "dense_optimizer", "table_optimizer", "table_gradients"):
        assert scored.bytes_per_rank[kind] == (0,)


@pytest.mark.parametrize("content", [b"\x80\x81", b"{"])
def test_what_is_not_text_is_refused_too(tmp_path: Path, runtime: Runtime, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        planned(runtime, path=str(tmp_path / "plan.json"))
    assert str(refused.value).startswith(f"run.plan: {tmp_path / 'plan.json'} is not JSON (")


def test_a_folder_is_not_a_plan(tmp_path: Path, runtime: Runtime) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(runtime, path=str(tmp_path))
    assert str(refused.value) == (
        f"run.plan: {str(tmp_path)!r} is not a file; name the plan.json of a run's folder or checkpoint, or leave it"
        " empty to plan anew"
    )


def test_what_training_chose_for_its_machine_does_not_bind_a_scoring_job(runtime: Runtime) -> None:
    wish = {"optimizer": "adam", "placement": "row_wise", "kernel": "uvm"}  # of a GPU; a CPU's training has none
    specs = [dataclasses.replace(spec, **wish) for spec in two_member_specs()]
    task = two_member_task(specs)
    scored = plan_task(task, specs, rows_per_rank=8, dense=None, path="", runtime=runtime)
    assert {table["sharding_type"] for table in scored.as_json["tables"].values()} == {"row_wise"}
    with pytest.raises(ConfigError, match="uvm|adam"):
        plan_task(task, specs, rows_per_rank=8, dense=Dense(), path="", runtime=runtime)
