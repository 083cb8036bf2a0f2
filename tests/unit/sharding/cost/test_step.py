"""A step's parts and how they overlap."""

from __future__ import annotations

import dataclasses

import pytest

from configs.hardware_schema import Calibration, Memory, Overheads
from sharding.cost.step import Sent, StepWork, TableLoad, step_parts, step_seconds
from sharding.cost.work import DenseWork, Pass
from tests.unit.sharding.cost.made_hardware import round_machine

LOAD = TableLoad(rank=0, rows=1000, columns=10, ids=100.0, distinct=50.0, bags=100.0, rule="adagrad")
WORK = StepWork(
    world_size=2,
    rows_per_rank=100,
    loads=[LOAD],
    sent={
        "ids_all_to_all": Sent(intra_host=1e5, inter_host=0.0),
        "dense_all_reduce": Sent(intra_host=2e5, inter_host=0),
    },
    dense=DenseWork(passes=(Pass(moved_bytes=10_000_000),)),
    optimizer=DenseWork(passes=(Pass(moved_bytes=1_000_000),)),
    stored_bytes=160.0,
    stored_values=40.0,
)
FORWARD, BACKWARD = 100 * (10e-9 + 40e-9), 50 * (200e-9 + 40e-9)


def test_each_part_by_hand() -> None:
    parts = step_parts(WORK, hardware=round_machine())
    assert parts["data"] == pytest.approx(100 / 1e6)  # more than 2 x 100 x 160 bytes from a disk of 1 GB/s
    assert parts["lookup"] == pytest.approx(FORWARD + BACKWARD)
    assert parts["communication"] == pytest.approx(1e-5 + 3e-6 + 2e-5 + 1e-6)
    assert parts["dense"] == pytest.approx(1e-4)
    assert parts["optimizer"] == pytest.approx(1e-5)


def test_the_slowest_rank_sets_the_lookup() -> None:
    more = [LOAD, dataclasses.replace(LOAD, rank=1), dataclasses.replace(LOAD, rank=1)]
    parts = step_parts(dataclasses.replace(WORK, loads=more), hardware=round_machine())
    assert parts["lookup"] == pytest.approx(2 * (FORWARD + BACKWARD))


def test_a_table_that_is_only_read_costs_no_update() -> None:
    work = dataclasses.replace(WORK, loads=[dataclasses.replace(LOAD, rule=None)])
    assert step_parts(work, hardware=round_machine())["lookup"] == pytest.approx(FORWARD)


def test_a_replica_fills_a_gradient_of_its_own_size() -> None:
    work = dataclasses.replace(WORK, loads=[dataclasses.replace(LOAD, is_replica=True)])
    expected = FORWARD + 50 * 100e-9 + 1000 * 10 * 4 / 100e9
    assert step_parts(work, hardware=round_machine())["lookup"] == pytest.approx(expected)


def test_rows_in_host_memory_cross_twice_in_training_and_once_in_scoring() -> None:
    machine = round_machine(memory=Memory(gb_per_s=100.0, host_gb_per_s=1.0))
    for rule, crossings, other in (("adagrad", 2, BACKWARD), (None, 1, 0.0)):
        work = dataclasses.replace(WORK, loads=[dataclasses.replace(LOAD, rule=rule, host_share=0.5)])
        expected = FORWARD + other + crossings * 0.5 * 50 * 40e-9
        assert step_parts(work, hardware=machine)["lookup"] == pytest.approx(expected)


def test_overheads_count_tables_and_the_step() -> None:
    machine = round_machine(overheads=Overheads(step_us=100.0, table_us=10.0, replica_us=1.0))
    loads = [LOAD, LOAD, dataclasses.replace(LOAD, rule=None, is_replica=True)]
    parts = step_parts(dataclasses.replace(WORK, loads=loads), hardware=machine)
    assert parts["lookup"] == pytest.approx(3 * FORWARD + 2 * BACKWARD + 121e-6)


def test_calibration_multiplies_its_part_alone() -> None:
    plain = step_parts(WORK, hardware=round_machine())
    found = step_parts(WORK, hardware=round_machine(calibration=Calibration(factors={"dense": 2.0}, runs=1)))
    assert found == plain | {"dense": 2 * plain["dense"]}


def test_overlap_hides_data_and_ids_behind_the_rest() -> None:
    parts = step_parts(WORK, hardware=round_machine())
    ids = 1e-5 + 3e-6
    total = sum(parts.values())
    assert step_seconds(WORK, hardware=round_machine()) == pytest.approx(total)
    assert step_seconds(WORK, hardware=round_machine(overlap="data")) == pytest.approx(total - parts["data"])
    hidden = step_seconds(WORK, hardware=round_machine(overlap="data_and_ids"))
    assert hidden == pytest.approx(total - parts["data"] - ids)
    slow_disk = dataclasses.replace(WORK, stored_bytes=160_000.0)
    data = 2 * 100 * 160_000 / 1e9
    assert step_seconds(slow_disk, hardware=round_machine(overlap="data")) == pytest.approx(data)
