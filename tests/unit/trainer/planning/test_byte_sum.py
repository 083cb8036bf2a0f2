"""The byte sum: exact where placements leave no choice, and never above what a plan holds."""

from __future__ import annotations

import pytest

from tests.support.planned_cases import MIB, facts, machine, run_of
from trainer.planning.byte_sum import ByteSum, byte_sum, room
from trainer.planning.planned_point import plan_point
from trainer.planning.planning_job import PlanningJob

ROWS = 40_000 + 20_000 + 10  # of a group's three tables, at dim 16


def total_of(*words: str, purpose="train", device="cuda") -> ByteSum:
    return byte_sum(run_of(*words), features=facts().features, purpose=purpose, device=device)


@pytest.mark.parametrize(
    ("words", "purpose", "row_bytes"),
    [
        ((), "train", 2 * 64),  # element-wise Adagrad: a state value of each weight
        (("--tables.shared.optimizer=rowwise_adagrad", "--tables.own.optimizer=rowwise_adagrad"), "train", 64 + 4),
        (("--tables.shared.optimizer=sgd", "--tables.own.optimizer=sgd"), "train", 64),
        (("--tables.shared.optimizer=adam", "--tables.own.optimizer=adam"), "train", 3 * 64),
        ((), "score", 64),
        (("--members.solo.freeze=true", "--members.deep.tables=own"), "score", 64),
    ],
)
def test_bytes_of_tables(words, purpose, row_bytes):
    assert total_of(*words, purpose=purpose).table_bytes == 3 * ROWS * row_bytes


def test_shared_tables_count_once_and_own_ones_for_each_copy():
    once = total_of("--members.solo.tables=shared", "--tables.own={}").table_bytes
    assert once == ROWS * 128
    assert total_of("--members.solo.copies=5").table_bytes == 6 * once


def test_what_is_not_trained_has_no_state():
    frozen = total_of("--members.solo.freeze=true")
    assert frozen.table_bytes == ROWS * 128 + 2 * ROWS * 64


def test_early_stop_keeps_the_best_weights():
    early = ("--train.early_stop.evaluations=2", "--train.evaluate_every={steps = 10}")
    words = (*early, "--tables.shared.optimizer=sgd", "--tables.own.optimizer=sgd")
    assert total_of(*words).table_bytes == 3 * ROWS * 128
    assert total_of(*words).dense_bytes == pytest.approx(total_of().dense_bytes * 5 / 4)  # Adam: 4 values, and 1 more


def test_dense_parameters_follow_each_members_rule():
    adam, sgd = total_of().dense_bytes, total_of("--dense.optimizer=sgd").dense_bytes
    assert adam == 2 * sgd  # weights and gradients, and twice the weights again
    mixed = total_of("--dense.optimizer=sgd", "--members.solo.optimizer=adam").dense_bytes
    assert sgd < mixed < adam
    assert total_of(purpose="score").dense_bytes == sgd / 2


def test_int8_rows_lie_on_every_rank():
    total = total_of("--score.tables=int8", purpose="score")
    box = machine(100)
    assert {table.spread for table in total.tables} == {"every_rank"}
    assert total.least_per_rank(box, world_size=4) == total.least_per_rank(box, world_size=1)
    assert total.table_bytes == 3 * ROWS * 32  # 16 bytes, scale and bias, padded to what a GPU loads at once


def test_tables_spread_as_far_as_placements_allow():
    box = machine(100)
    tables = 3 * ROWS * 128
    dense = total_of().dense_bytes
    assert total_of().least_per_rank(box, world_size=8) - dense == tables / 8
    replicated = total_of("--tables.own.placement=data_parallel")
    assert replicated.least_per_rank(box, world_size=8) - dense == 2 * ROWS * 192 + ROWS * 128 / 8
    whole = total_of("--tables.shared.placement=table_wise", "--tables.own.placement=table_wise")
    assert whole.least_per_rank(box, world_size=100) - dense == 40_000 * 128
    halves = total_of("--tables.shared.placement=column_wise", "--tables.own.placement=table_wise")
    assert halves.least_per_rank(box, world_size=100) - dense == 40_000 * 128
    on_host = total_of("--tables.shared.placement=table_row_wise", "--tables.own.placement=row_wise")
    assert on_host.least_per_rank(box, world_size=100) - dense == 40_000 * 128 / 4


def test_adam_has_no_kernel_on_cpus_and_is_replicated():
    words = ("--tables.shared.optimizer=adam", "--tables.own.optimizer=adam")
    total = total_of(*words, device="cpu")
    assert {table.spread for table in total.tables} == {"every_rank"}


def test_host_memory_is_counted_apart():
    total = total_of("--tables.shared.kernel=uvm", "--tables.own.kernel=uvm_caching")
    box = machine(1)
    cached = 2 * ROWS * 64 / 5
    assert total.least_per_rank(box, world_size=4) - total.dense_bytes == pytest.approx(cached / 4, abs=2)
    assert total.shortfall(machine(8), world_size=4) is None
    poor = machine(8, host=type(box.host)(ranks=4, memory_gib=1 / 1024))
    short = total.shortfall(poor, world_size=4)
    assert short is not None and short.where == "host" and short.capacity_bytes == int(0.9 * MIB / 4)


def test_what_is_missing_is_said():
    total = total_of()
    need = total.least_per_rank(machine(1), world_size=4)
    fits = machine(need / 0.9 / MIB + 0.001)
    assert total.shortfall(fits, world_size=4) is None
    short = total.shortfall(machine(need / 0.9 / MIB - 0.001), world_size=4)
    assert short is not None and short.where == "device"
    assert short.need_bytes > short.capacity_bytes
    assert "at least 5.5 MiB on a rank of 4" in short.sentence.replace("\u00a0", " ")


def test_a_table_too_large_for_its_placement_is_named():
    total = total_of("--tables.own.placement=table_wise")
    short = total.shortfall(machine(5), world_size=8)
    assert short is not None and short.where == "placement"
    assert "table solo_1/C1 alone takes, placed as tables.own says" in short.sentence
    assert total_of().shortfall(machine(5), world_size=8) is None


def test_growth_grows_every_table():
    total = total_of()
    assert total.grown(1.5).table_bytes == 3 * (60_000 + 30_000 + 15) * 128
    assert total.grown(1.5).dense_bytes == total.dense_bytes


def test_the_reserve_and_the_process_are_not_there_for_tables():
    box = machine(
        100,
        memory=type(machine(1).memory)(gib=1.0, reserve_share=0.25, process_gib=0.5, gb_per_s=1.0, host_gb_per_s=1.0),
    )
    assert room(box, world_size=4) == 256 * MIB


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("words", [(), ("--tables.own.placement=table_wise", "--tables.shared.placement=row_wise")])
def test_no_plan_holds_less(device, words):
    """What the sum rules out must be out of every plan's reach."""
    config = run_of(*words)
    box = machine(64, device=device)
    total = byte_sum(config, features=facts().features, purpose="train", device=device)
    job = PlanningJob(config=config, data=facts(), purpose="train")
    for world_size in (1, 2, 4):
        point = plan_point(job, hardware=box, world_size=world_size)
        assert point.fits, point.refusal
        kinds = ("table_weights", "table_optimizer", "table_gradients", "dense_weights", "dense_gradients")
        held = [point.held[kind] for kind in (*kinds, "dense_optimizer", "checkpoint_copy") if kind in point.held]
        fullest = max(sum(of_rank) for of_rank in zip(*held, strict=True))
        assert total.least_per_rank(box, world_size=world_size) <= fullest
        spread = sum(point.held["table_weights"]) + sum(point.held["table_optimizer"])
        assert total.table_bytes <= spread
        if device == "cuda":
            on_host = total.least_per_rank(box, world_size=world_size, memory="host")
            assert total.table_bytes / world_size < on_host <= max(point.host_held)
        if world_size == 1:
            assert total.table_bytes == spread  # exactly


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_copy_of_checkpoints_is_counted_where_it_lies(device):
    """Weights and states once more, without gradients: on CPU hosts where ranks compute, else beside the GPU."""
    box, quiet = machine(100, device=device), "--checkpoint.background=false"
    with_copy, without = total_of(device=device), total_of(quiet, device=device)
    assert with_copy.table_bytes == without.table_bytes
    copy = 3 * ROWS * 128 / 4 + without.dense_bytes * 3 / 4
    of_memory = {
        memory: with_copy.least_per_rank(box, world_size=4, memory=memory)
        - without.least_per_rank(box, world_size=4, memory=memory)
        for memory in ("device", "host")
    }
    assert of_memory == ({"device": copy, "host": 0} if device == "cpu" else {"device": 0, "host": copy})
    assert total_of(purpose="score", device=device).dense_copy_bytes == 0


def test_tables_in_host_memory_are_copied_too():
    words = ("--tables.shared.kernel=uvm", "--tables.own.kernel=uvm")
    box = machine(100)
    kept = total_of(*words, "--checkpoint.background=false").least_per_rank(box, world_size=4, memory="host")
    total = total_of(*words)
    assert total.least_per_rank(box, world_size=4, memory="host") == 2 * kept + total.dense_copy_bytes
    point = plan_point(PlanningJob(config=run_of(*words), data=facts()), hardware=box, world_size=4)
    assert sum(point.host_held) >= 2 * total.table_bytes
    fits_once = machine(100, host=type(box.host)(ranks=4, memory_gib=4 * 1.5 * kept / 0.9 / 2**30))
    short = total.shortfall(fits_once, world_size=4)
    assert short is not None and short.where == "host" and "checkpoint.background" in short.sentence


def test_host_memory_may_take_what_the_gpu_does_not():
    small = machine(3)
    total = total_of()
    assert total.shortfall(small, world_size=4) is not None
    assert total.shortfall(small, world_size=4, host_memory=True) is None
    poor = machine(3, host=type(small.host)(ranks=4, memory_gib=8 / 1024))
    assert total.shortfall(poor, world_size=4, host_memory=True) is not None
    assert total.shortfall(machine(3, device="cpu"), world_size=4, host_memory=True) is not None
