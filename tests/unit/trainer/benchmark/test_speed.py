"""Rows/s of exported members: measured once for an architecture, kept, and added up for a merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import stored_checkpoints as stored
from tests.support.benchmarks import KINDS, made_results
from trainer import storage
from trainer.benchmark import speed
from trainer.benchmark.columns import Results
from trainer.data.manifest import DataManifest, FeatureSpec, Part, PartFile

NUM_ROWS = 50


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS_A_TURN", 0.01)
    monkeypatch.setattr(speed, "ROUNDS", 3)


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Rows with the features of the stored checkpoint: C1, C2 and I1."""
    random, root = np.random.default_rng(1), tmp_path / "data"
    root.mkdir()
    arrays = {
        "dense": random.normal(size=(NUM_ROWS, 1)).astype(np.float32),
        "sparse": random.integers(0, list(stored.ROWS.values()), size=(NUM_ROWS, 2), dtype=np.int32),
        "labels": np.ones((NUM_ROWS, 1), dtype=np.int32),
    }
    files = {}
    for role, array in arrays.items():
        path = root / f"{role}.npy"
        np.save(path, array)
        files[role] = PartFile(path=path.name, num_bytes=path.stat().st_size, sha256=storage.sha256(str(path)))
    features = [FeatureSpec(name="I1", kind="dense", file="dense", column=0)]
    features += [
        FeatureSpec(name=name, kind="id", file="sparse", column=column, rows=rows)
        for column, (name, rows) in enumerate(stored.ROWS.items())
    ]
    part = Part(name="test", num_rows=NUM_ROWS, label_sum=NUM_ROWS, files=files)
    DataManifest(features=tuple(features), parts=(part,), dictionary_sha256="d1").write(str(root))
    return {"all": str(root)}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    checkpoint = str(stored.store(tmp_path / "checkpoint", stored.state()))
    made = made_results(noises={"deep": 1.0, "solo": 1.0}, groups=2)
    return replace(made, columns=tuple(replace(one, checkpoint=checkpoint) for one in made.columns))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The members that are loaded to be measured, in order."""
    found: list[str] = []
    load: Callable = speed.load_member

    def counting(path: str) -> object:
        loaded = load(path)
        found.append(loaded.facts.member)
        return loaded

    monkeypatch.setattr(speed, "load_member", counting)
    return found


def test_each_architecture_is_measured_once_and_kept(
    results: Results, data: dict[str, str], measured: list[str], tmp_path: Path
) -> None:
    said: list[str] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    first = speed.speeds(results, data=data, folder=str(tmp_path), say=said.append)
    assert set(first) == {("kinds", "deep"), ("kinds", "solo")} and min(first.values()) > 1_000
    assert measured == ["deep", "solo"] and said[0].startswith("speed: 2 architectures on c")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert speed.speeds(results, data=data, folder=str(tmp_path), say=said.append) == first
    assert len(measured) == 2 and len(said) == 1
    speed.speeds(results, data=data, folder=str(tmp_path), say=said.append, again=True)
    assert len(measured) == 4


def test_what_another_machine_measured_is_kept_and_does_not_count(
    results: Results, data: dict[str, str], measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed.speeds(results, data=data, folder=str(tmp_path), say=print)
    monkeypatch.setattr(speed, "machine", lambda: {"processor": "another"})
    speed.speeds(results, data=data, folder=str(tmp_path), say=print)
    speed.speeds(results, data=data, folder=str(tmp_path), say=print, again=True)
    assert measured == ["deep", "solo"] * 3
    kept = storage.read_json(str(tmp_path / speed.SPEED_NAME))
    assert len(kept) == 4 and len({one["machine"] for one in kept.values()}) == 2
    assert all(len(one["rates"]) == 3 for one in kept.values())


def test_slower_members_have_lower_rates(
    results: Results, data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = speed.load_member

    def more_work(*_: object) -> None:
        for _turn in range(5):
            torch.ones(300, 300) @ torch.ones(300, 300)

    def slowed(path: str) -> object:
        loaded = load(path)
        if loaded.facts.member == "deep":
            loaded.model.register_forward_hook(more_work)
        return loaded

    monkeypatch.setattr(speed, "load_member", slowed)
    found = speed.speeds(results, data=data, folder=str(tmp_path), say=print)
    assert found["kinds", "deep"] < found["kinds", "solo"] / 2


def test_members_of_a_merge_run_one_after_the_other(results: Results) -> None:
    rates = {("kinds", "deep"): 300.0, ("kinds", "solo"): 600.0}
    deep, solo = results.of(["kinds"], group=1, window="all")
    assert speed.merged_rate([deep], of=rates) == pytest.approx(300.0)
    assert speed.merged_rate([deep, solo], of=rates) == pytest.approx(200.0)
    assert speed.merged_rate([deep, deep, solo], of=rates) == pytest.approx(120.0)
    strategy = replace(KINDS, sizes=(1, 2))
    # One of two at a time: half the rows at 300 a second, half at 600.
    assert speed.strategy_rate(results, strategy=strategy, size=1, of=rates) == pytest.approx(400.0)
    assert speed.strategy_rate(results, strategy=strategy, size=2, of=rates) == pytest.approx(200.0)


@pytest.mark.gpu
def test_where_there_is_a_gpu_it_is_measured(results: Results, data: dict[str, str], tmp_path: Path) -> None:
    found = speed.speeds(results, data=data, folder=str(tmp_path), say=print)
    (name,) = {one["machine"] for one in storage.read_json(str(tmp_path / speed.SPEED_NAME)).values()}
    assert min(found.values()) > 1_000 and name.startswith(torch.cuda.get_device_name())
