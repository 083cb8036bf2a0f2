"""Points: known sizes come out, plans are the trainer's, and bytes follow from what the job is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.hardware_schema import AccessRate, Calibration, HardwareFile, LookupRates
from configs.loader import read_hardware
from configs.schema import RunConfig
from sharding.hardware import planned_hardware
from tests.support.planned_cases import facts, machine, run_of
from trainer.planning.byte_sum import byte_sum
from trainer.planning.capacity_point import CapacityPoint
from trainer.planning.data_facts import DataFacts, data_facts
from trainer.planning.planned_point import plan_point
from trainer.planning.planning_job import PlanningJob
from trainer.task_plan import planned_task

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
GIB = 2**30
# Small members, so that the tables are what the known sizes speak of.
MLP = '{tables = "%s", arch = {kind = "mlp", hidden = [64]}}'


def mlperf(tables: str, *, optimizer: str) -> RunConfig:
    """Three members on MLPerf's tables."""
    words = [f"--tables.{tables}.dim=128", f"--tables.{tables}.optimizer={optimizer}", "--train.batch_size=65536"]
    words += [f"--members.m{number}={MLP % tables}" for number in range(3)]
    return run_of(*words, text="")


@pytest.fixture(scope="module")
def mlperf_rows() -> DataFacts:
    return data_facts(run_of(), path=str(CONFIGS / "outlines" / "mlperf_dcnv2.toml"))


@pytest.fixture(scope="module")
def h100() -> HardwareFile:
    return read_hardware(str(CONFIGS / "hardware" / "h100_80gb_8.toml"))


def test_mlperf_s_tables_take_what_they_are_known_to_take(mlperf_rows: DataFacts) -> None:
    def gib(tables: str, optimizer: str) -> float:
        config = mlperf(tables, optimizer=optimizer)
        return byte_sum(config, features=mlperf_rows.features, purpose="train", device="cuda").table_bytes / GIB

    assert gib("shared", "sgd") == pytest.approx(97.36, abs=0.005)
    assert gib("shared", "adagrad") == pytest.approx(194.7, abs=0.05)
    assert gib("own", "adagrad") == pytest.approx(584.2, abs=0.1)
    assert gib("own", "rowwise_adagrad") / 8 == pytest.approx(36.8, abs=0.05)
    assert gib("shared", "adagrad") / 8 == pytest.approx(24.3, abs=0.05)


@pytest.mark.parametrize(
    ("tables", "optimizer", "fits"),
    [("own", "adagrad", False), ("own", "rowwise_adagrad", True), ("shared", "adagrad", True)],
)
def test_which_of_three_members_fit_eight_gpus_of_80_gb(
    tables: str, optimizer: str, fits: bool, mlperf_rows: DataFacts, h100: HardwareFile
) -> None:
    job = PlanningJob(config=mlperf(tables, optimizer=optimizer), data=mlperf_rows)
    point = plan_point(job, hardware=h100, world_size=8)
    assert point.fits is fits
    if point.refusal is not None:  # 73.0 GiB of tables a rank, and 68 without the reserve
        assert 73.0 < point.refusal.need_bytes / GIB < 76.0
        assert point.refusal.capacity_bytes / GIB < 68.0
        assert "rowwise_adagrad" in point.refusal.sentence
        return
    sharded = [sum(of) for of in zip(point.held["table_weights"], point.held["table_optimizer"], strict=True)]
    least = byte_sum(job.config, features=mlperf_rows.features, purpose="train", device="cuda").table_bytes
    assert least <= sum(sharded) < 1.01 * least  # a few small tables are on every rank
    assert max(map(sum, zip(*point.held.values(), strict=True))) <= point.capacity_bytes


def point_of(*words: str, data: DataFacts | None = None, world_size: int = 2, **keys: object) -> CapacityPoint:
    hardware = keys.pop("hardware", machine(4096, device="cpu", ranks=4))
    job = PlanningJob(config=run_of(*words), data=data or facts(), **keys)  # type: ignore[arg-type]
    return plan_point(job, hardware=hardware, world_size=world_size)  # type: ignore[arg-type]


def test_the_trainer_s_function_takes_the_plan_back(tmp_path: Path) -> None:
    hardware = machine(4096, device="cpu", ranks=4)
    job = PlanningJob(config=run_of(), data=facts())
    point = plan_point(job, hardware=hardware, world_size=2)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(point.plan))
    again = plan_point(job, hardware=hardware, world_size=2, plan_path=str(path))
    assert again.plan == point.plan
    live = dataclasses.replace(planned_hardware(hardware, world_size=2), bandwidths=None)
    work = job.task_work(rows_per_rank=128, extra_bytes=0)
    taken = planned_task(job.built.task, job.built.specs, hardware=live, work=work, path=str(path))
    assert taken.as_json["tables"] == point.plan["tables"]  # type: ignore[index]
    assert taken.as_json["fingerprint"] == point.plan["fingerprint"]  # type: ignore[index]


def test_own_tables_ids_travel_once_for_each_member() -> None:
    words = ("--tables.own.placement=table_wise", "--tables.shared.placement=table_wise")
    solo = point_of(*words)
    more = point_of(*words, "--members.solo.copies=4")
    one = point_of(*words, "--members.solo.copies=1", "--train.batch_size=256")
    ids = [sum(point.held["id_buffers"]) for point in (one, solo, more)]
    assert ids[1] - ids[0] == pytest.approx((ids[2] - ids[1]) / 2)
    assert ids[1] > 1.4 * ids[0]


def test_scoring_has_neither_gradients_nor_state() -> None:
    point = point_of(purpose="score")
    assert not {"table_optimizer", "table_gradients", "dense_gradients", "dense_optimizer", "checkpoint_copy"} & set(
        point.held
    )
    assert (point.batch_size, point.rows_per_rank) == (128, 64)
    assert point.step is not None
    assert point.step.parts["optimizer"] == 0
    assert point.hours == pytest.approx(782 * point.step.total / 3600)  # whole steps of 100,000 rows, 128 each


@pytest.mark.parametrize(("dtype", "row_bytes"), [("fp16", 2 * 16), ("int8", 16 + 4)])
def test_quantised_tables_are_whole_on_every_rank(dtype: str, row_bytes: int) -> None:
    rate = AccessRate(id_gb_per_s=1.0)
    by_bytes = machine(4096, device="cpu", ranks=4, lookup=LookupRates(forward=rate, backward={"sgd": rate}))
    point = point_of(f"--score.tables={dtype}", purpose="score", hardware=by_bytes)
    rows = sum(facts().features.table_rows.values()) * 3  # shared, and two members' own
    assert point.held["table_weights"] == (rows * row_bytes,) * 2
    assert point.plan is None
    whole = point_of(purpose="score", world_size=1, hardware=by_bytes)
    assert whole.step is not None and point.step is not None
    assert point.step.parts["lookup"] == pytest.approx(whole.step.parts["lookup"] / (2 if dtype == "fp16" else 4))


def test_a_gpu_host_must_hold_what_its_ranks_keep_there() -> None:
    hardware = machine(4096, ranks=4)
    small = dataclasses.replace(hardware, host=dataclasses.replace(hardware.host, memory_gib=0.02))
    words = ("--data.shuffle_window=100000",)  # of 40 bytes a row, two of them
    assert point_of(*words, hardware=hardware).fits
    found = point_of(*words, hardware=small)
    assert found.refusal is not None and found.refusal.where == "host"
    assert "checkpoint.background" in found.refusal.sentence
    assert found.refusal.need_bytes == max(found.host_held) > 2 * 100_000 * 40


def test_speed_is_the_batch_over_the_step_and_cost_the_hosts_hours() -> None:
    hardware = machine(4096, device="cpu", ranks=2, price=3.0)
    point = point_of(world_size=4, hardware=hardware)
    assert point.step is not None
    assert point.rows_per_second == pytest.approx(256 / point.step.total)
    assert point.hours == pytest.approx(3907 * point.step.total / 3600)
    assert point.num_hosts == 2
    assert point.cost == pytest.approx(2 * 3.0 * point.hours)
    assert point_of().cost is None


def test_a_run_s_threads_must_be_those_that_the_rates_are_of() -> None:
    hardware = machine(4096, device="cpu", ranks=4)
    wide = dataclasses.replace(hardware, host=dataclasses.replace(hardware.host, threads_per_rank=12))
    with pytest.raises(ConfigError, match="--run.threads_per_rank=12"):
        point_of(hardware=wide)
    assert point_of("--run.threads_per_rank=12", hardware=wide).fits


def test_the_planner_leaves_room_for_a_checkpoint_s_copy_on_cpu_hosts() -> None:
    # Some tables of this log take a tenth of a rank's memory: packed without a thought of the copy, they overfill one.
    config = run_of("--run.threads_per_rank=12", text=(CONFIGS / "criteo_tb.toml").read_text())
    job = PlanningJob(config=config, data=data_facts(config, path=str(CONFIGS / "outlines" / "criteo_tb.toml")))
    hardware = read_hardware(str(CONFIGS / "hardware" / "cpu_spr_2s.toml"))
    point = plan_point(job, hardware=hardware, world_size=24)
    assert point.fits, point.refusal
    assert min(point.held["checkpoint_copy"]) > 2**30


def test_which_member_the_dense_part_is_of() -> None:
    point = point_of('--members.wide={arch = {kind = "mlp", hidden = [512, 512]}}', "--train.batch_size=4096")
    assert list(point.dense_shares)[0] == "wide"
    assert set(point.dense_shares) == {"deep", "solo_1", "solo_2", "wide"}
    assert sum(point.dense_shares.values()) == pytest.approx(1.0)
    assert point.dense_shares["wide"] > 0.8 > 0.05 > point.dense_shares["solo_1"]


def test_bounding_the_tables_gradients_is_work_of_the_optimizers() -> None:
    words = ("--tables.own.placement=data_parallel",)
    free, clipped = point_of(*words).step, point_of(*words, "--tables.own.clip_norm=1").step
    assert free is not None
    assert clipped is not None
    assert [part for part, seconds in clipped.parts.items() if seconds > free.parts[part]] == ["optimizer"]


def test_ranks_of_a_part_of_a_cpu_host_share_all_of_its_memory() -> None:
    assert point_of(world_size=2).capacity_bytes == 2 * point_of(world_size=4).capacity_bytes


def test_what_runs_have_shown_of_memory_multiplies_its_kinds() -> None:
    calibration = Calibration(
        memory_gib=0.5, activation_factor=2.0, buffer_factors={"alone": 3.0, "exchanged": 5.0, "row_wise": 7.0}, runs=1
    )
    for placement, world_size, factor in (("table_wise", 1, 3), ("table_wise", 2, 5), ("row_wise", 2, 7)):
        words = (f"--tables.own.placement={placement}", f"--tables.shared.placement={placement}")
        plain = point_of(*words, world_size=world_size)
        hardware = machine(4096, device="cpu", ranks=4, calibration=calibration)
        known = point_of(*words, world_size=world_size, hardware=hardware)
        for kind in ("id_buffers", "embedding_buffers"):
            assert known.held[kind] == tuple(factor * count for count in plain.held[kind])
        assert known.held["activations"] == tuple(2 * count for count in plain.held["activations"])
        assert known.held["process"] == (GIB // 2,) * world_size
        assert known.held["table_weights"] == plain.held["table_weights"]
