"""usage.json: bytes of the tensors that are there, windows of steps, memory, and what a killed run has left."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import small_run
from tests.support.training import train_run
from trainer import usage
from trainer.checkpoints.pieces import Pieces
from trainer.data.reading.opening import open_sources
from trainer.runtime import Runtime
from trainer.usage import UsageLog, allocated_bytes, memory_now


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "usage.json").read_text())
    return found


def test_bytes_are_those_of_the_local_pieces() -> None:
    piece, state = torch.zeros(6, 4), torch.zeros(6)
    tensors = {
        "model/ensemble.tables.embedding_bags.a/C1.weight": Pieces(shape=(10, 4), parts={(4, 0): piece}),
        "optimizer/tables/a/C1/sum": Pieces(shape=(10,), parts={(4,): state}),
        "optimizer/tables/a/C1/step": torch.tensor(3),
        "model/ensemble.tables.embedding_bags.a/C2.weight": torch.zeros(5, 4),
        "optimizer/tables/a/C2/sum": torch.zeros(5, 4),
        "model/ensemble.bank.members.deep.layer.weight": torch.zeros(7),
        "optimizer/dense/ensemble.bank.members.deep.layer.weight/exp_avg": torch.zeros(7),
    }
    plan = {"a/C1": {"kernel": "fused"}, "a/C2": {"kernel": "fused_uvm_caching"}}
    assert allocated_bytes(tensors, plan=plan) == {
        "table_weights": 96,
        "table_optimizer": 24,
        "dense_weights": 28,
        "dense_optimizer": 28,
        "host_table_weights": 80,
        "host_table_optimizer": 80,
    }


def test_memory_grows_by_what_is_taken() -> None:
    device = torch.device("cpu")
    before = memory_now(device)
    # New pages; a tensor may get some that the heap has kept.
    taken = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    torch.frombuffer(taken, dtype=torch.uint8).fill_(1)
    after = memory_now(device)
    assert 60 << 20 <= after["anonymous_bytes"] - before["anonymous_bytes"] <= 72 << 20
    assert after["peak_resident_bytes"] >= after["resident_bytes"] >= after["anonymous_bytes"] >= len(taken)


def test_a_run_leaves_what_it_took(tmp_path: Path, runtime: Runtime) -> None:
    train_run(runtime, small_run("--train.until={steps = 7}", "--train.log_every.steps=3"), str(tmp_path))
    found = read(tmp_path)
    assert found["complete"]
    assert (found["world_size"], found["batch_size"], found["rows_per_rank"]) == (1, 24, 24)
    assert found["data"]["table_rows"]["C1"] == 62 and found["data"]["mean_ids"]["C1"] == 1.0
    assert len(found["data"]["dense_names"]) == 13
    (rank,) = found["ranks"]
    rows = sum(found["data"]["table_rows"].values())
    # One shared group and two own ones, of dim 8, 4 and 4, and first-order tables of dim 4, all under row-wise Adagrad.
    assert rank["allocated"]["table_weights"] == 4 * rows * (8 + 4 + 4 + 4)
    assert rank["allocated"]["table_optimizer"] == 4 * rows * 4
    assert rank["allocated"]["dense_optimizer"] == 2 * rank["allocated"]["dense_weights"] > 0
    windows = rank["windows"]
    assert [(window["steps"], window["warm_up"]) for window in windows] == [(3, True), (3, False), (1, False)]
    assert sum(window["rows"] for window in windows) == 24 * 7  # of them the ninth batch would be ragged
    for window in windows:
        assert set(window["phases"]) == {"data", "lookup", "communication", "dense", "optimizer"}
        assert 0 < sum(window["phases"].values()) * window["steps"] <= window["seconds"]
    memory = rank["memory"]
    assert list(memory) == ["before_assembly", "assembled", "trained"]
    assert memory["trained"]["peak_resident_bytes"] >= memory["before_assembly"]["resident_bytes"] > 0


def test_a_run_that_goes_on_warms_up_again(tmp_path: Path, runtime: Runtime) -> None:
    words = ("--train.log_every.steps=2", "--run.folder=x")
    train_run(runtime, small_run("--train.until={steps = 4}", *words), str(tmp_path))
    train_run(runtime, small_run("--train.until={steps = 8}", *words), str(tmp_path))
    windows = read(tmp_path)["ranks"][0]["windows"]
    assert [(window["steps"], window["warm_up"]) for window in windows] == [(2, True), (2, False)]
    train_run(runtime, small_run("--train.until={steps = 8}", *words), str(tmp_path))  # nothing is left to do
    assert read(tmp_path)["ranks"][0]["windows"] == windows


def test_a_killed_run_has_left_its_first_log(tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(tmp_path, runtime)
    monkeypatch.setattr(usage, "_WRITE_EVERY_SECONDS", 3600.0)
    assert not (tmp_path / "usage.json").exists()
    log.begin()
    for _ in range(3):
        log.add(steps=2, rows=8, seconds=0.5, phases={"dense": 0.4})
    found = read(tmp_path)
    assert not found["complete"] and len(found["ranks"][0]["windows"]) == 1  # later logs are not written one by one
    assert found["ranks"][0]["windows"][0]["phases"] == {"dense": 0.2}
    log.settle()
    assert read(tmp_path)["complete"] and len(read(tmp_path)["ranks"][0]["windows"]) == 3


def test_the_windows_of_a_long_run_are_its_newest(tmp_path: Path, runtime: Runtime) -> None:
    log = log_of(tmp_path, runtime)
    log.begin()
    for number in range(usage.MOST_WINDOWS + 5):
        log.add(steps=1, rows=number, seconds=0.5, phases={})
    log.add(steps=0, rows=0, seconds=0.0, phases={})  # two logs at one step
    log.settle()
    windows = read(tmp_path)["ranks"][0]["windows"]
    assert [window["rows"] for window in windows] == list(range(5, usage.MOST_WINDOWS + 5))


def log_of(folder: Path, runtime: Runtime) -> UsageLog:
    log = UsageLog(folder=str(folder), runtime=runtime)
    source = open_sources(small_run().data).train
    log.assembled({}, plan={"tables": {}, "made_for": {"rows_per_rank": 4}}, source=source, batch_size=4)
    return log
