"""TaskPlan: the planner's or a file's, with the report of the very job."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from configs.errors import ConfigError, PlanError
from sharding.hardware import Hardware
from sharding.ledger import PlannedTable
from tests.support.runs import small_run
from tests.unit.sharding.world_of_one import two_member_specs, two_member_task
from trainer.runtime import Runtime
from trainer.task_plan import TaskPlan, TaskWork, plan_task, planned_task, replicated_plan, training_work

TRAINED = TaskWork(rows_per_rank=8, dense_rules={"deep": "adam", "fm": "adam"})
SCORED = TaskWork(rows_per_rank=8)


def planned(runtime: Runtime, *, work: TaskWork = SCORED, path: str = "") -> TaskPlan:
    specs = two_member_specs()
    return plan_task(two_member_task(specs), specs, work=work, path=path, runtime=runtime)


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
    trained, scored = planned(runtime, work=TRAINED).report, planned(runtime).report
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
    scored = plan_task(task, specs, work=SCORED, runtime=runtime)
    assert {table["sharding_type"] for table in scored.as_json["tables"].values()} == {"row_wise"}
    with pytest.raises(ConfigError, match="uvm|adam"):
        plan_task(task, specs, work=TRAINED, runtime=runtime)


def offline(*, work: TaskWork, world_size: int = 1, device: str = "cpu", ddr_bytes: int = 2**33) -> TaskPlan:
    specs = two_member_specs()
    hardware = Hardware(
        device=device,  # type: ignore[arg-type]
        world_size=world_size,
        local_world_size=world_size,
        hbm_bytes=2**30 if device == "cuda" else 0,
        ddr_bytes=ddr_bytes,
    )
    return planned_task(two_member_task(specs), specs, hardware=hardware, work=work)


@pytest.mark.parametrize("work", [TRAINED, SCORED], ids=["train", "score"])
def test_a_plan_made_without_the_machine_is_the_one_that_runs_there(runtime: Runtime, work: TaskWork) -> None:
    assert offline(work=work) == planned(runtime, work=work)


def test_a_plan_for_many_gpus_is_made_by_this_process_alone() -> None:
    made = offline(work=TRAINED, world_size=16, device="cuda")
    assert made.as_json["made_for"]["world_size"] == 16
    assert len(made.report.held) == 16


def test_each_member_has_its_own_dense_optimizer() -> None:
    members = two_member_task(two_member_specs()).ensemble.bank.members
    deep, fm = (sum(p.numel() for p in members[name].parameters()) for name in ("deep", "fm"))
    work = dataclasses.replace(TRAINED, dense_rules={"deep": "adam", "fm": "adagrad"})
    assert offline(work=work).report.bytes_per_rank["dense_optimizer"] == (8 * deep + 4 * fm,)


def test_the_config_says_what_a_run_asks() -> None:
    config = small_run("--dense.optimizer=adagrad", "--members.deep.optimizer=sgd", "--train.evaluate_every={steps=1}")
    work = training_work(config, rows_per_rank=5, mean_ids={"C1": 2.0})
    assert work.dense_rules is not None and work.dense_rules["deep"] == "sgd"
    assert {rule for name, rule in work.dense_rules.items() if name != "deep"} == {"adagrad"}
    assert (work.rows_per_rank, work.mean_ids, work.keeps_best, work.host_memory) == (5, {"C1": 2.0}, False, True)
    stop = "--train.early_stop={evaluations=2, columns={shared='merged'}}"
    stopped = training_work(small_run("--train.evaluate_every={steps=1}", stop), rows_per_rank=5, mean_ids={})
    assert stopped.keeps_best


def test_mean_ids_go_by_feature_into_every_table_of_it() -> None:
    feature = two_member_specs()[0].feature
    once, thrice = (offline(work=dataclasses.replace(TRAINED, mean_ids={feature: mean})) for mean in (1.0, 3.0))
    tables = [spec.name for spec in two_member_specs() if spec.feature == feature]
    assert len(tables) == 3  # own, shared, first-order
    ids = {load.table: load.ids for load in thrice.report.lookups}
    for load in once.report.lookups:
        assert ids[load.table] == load.ids * (3 if load.table in tables else 1)
    assert thrice.report.bytes_per_rank["id_buffers"] > once.report.bytes_per_rank["id_buffers"]


def test_what_else_a_rank_holds_may_leave_too_little() -> None:
    offline(work=TRAINED)
    with pytest.raises(PlanError, match="nothing of a rank is left"):
        offline(work=dataclasses.replace(TRAINED, extra_bytes=2**33))


def test_quantised_tables_are_whole_on_every_rank() -> None:
    specs = two_member_specs()
    tables = {
        spec.name: PlannedTable(rows=spec.num_rows, dim=spec.dim, optimizer=spec.optimizer, row_bytes=7)
        for spec in specs
    }
    hardware = Hardware(device="cpu", world_size=2, local_world_size=2, hbm_bytes=0, ddr_bytes=2**33)
    report = replicated_plan(two_member_task(specs), tables, hardware=hardware, work=SCORED)
    assert report.bytes_per_rank["table_weights"] == (7 * sum(spec.num_rows for spec in specs),) * 2
    assert report.sent == (0, 0)
