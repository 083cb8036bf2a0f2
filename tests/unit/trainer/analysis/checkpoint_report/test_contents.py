"""The contents of a checkpoint: figures equal to those of the values that were stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import CheckpointError
from modules.tables import TableSpec
from sharding.initialisation import TableInit, initial_block
from tests.support.runs import small_run
from tests.support.stored_checkpoints import DENSE, ROWS, TABLE, TEXT, quiet, state, store
from trainer.analysis.checkpoint_report.contents import bytes_to_read, contents
from trainer.built_task import build_task
from trainer.checkpoints import state_files
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.data.reading.source import SourceFeatures


def of(folder: Path, *, quick: bool = False) -> dict[str, Any]:
    return contents(StoredCheckpoint.open(str(folder)), advance=None if quick else quiet)


def table(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [one for one in found["tables"] if one["name"] == name]
    return one


def test_figures_are_those_of_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "BLOCK_BYTES", 3 * 8 * 4)
    tensors = state()
    checkpoint = StoredCheckpoint.open(str(store(tmp_path / "a", tensors, pieces=(2, 2))))
    read: list[int] = []
    found = contents(checkpoint, advance=read.append)
    assert sum(read) == bytes_to_read(checkpoint)
    json.dumps(found)
    weights, sums = tensors[TABLE.format("shared/C1")].double(), tensors["optimizer/tables/shared/C1/sum"].double()
    one = table(found, "shared/C1")
    assert {key: one[key] for key in ("rows", "dim", "optimizer", "placement", "untouched_by")} == {
        "rows": 10,
        "dim": 8,
        "optimizer": "adagrad",
        "placement": "row_wise",
        "untouched_by": "sum is zero",
    }
    assert (one["norm"], one["mean_abs"]) == pytest.approx((float(weights.norm()), float(weights.abs().mean())))
    assert one["states"]["sum"]["norm"] == pytest.approx(float(sums.norm()))
    assert table(found, "solo/C1")["states"] == {}
    deep, solo = found["members"]
    keys = [key for key in tensors if key.startswith(DENSE.format("deep."))]
    assert deep["num_parameters"] == sum(tensors[key].numel() for key in keys)
    assert deep["norm"] == pytest.approx(sum(float(tensors[key].double().square().sum()) for key in keys) ** 0.5)
    assert (deep["architecture"]["hidden"], deep["group"], deep["optimizer_states"]) == ([4], "shared", ["step"])
    assert solo["architecture"]["kind"] == "deepfm"


def test_progress_plan_and_sizes(tmp_path: Path) -> None:
    tensors = state()
    folder = store(tmp_path / "a", tensors)
    found = of(folder, quick=True)
    assert (found["step"], found["world_size"], found["quality"]) == (7, 4, -0.5)
    assert found["progress"] == {"step": 7, "epoch": 1, "row": 3, "rows_total": 103}
    assert found["plan"] == {"fingerprint": "f1", "world_size": 4, "tables_per_sharding_type": {"row_wise": 6}}
    assert found["features"] == {"dense": ["I1"], "table_rows": ROWS, "dictionary": "d1"}
    sizes = found["bytes"]
    by_kind = {kind: sizes[kind] for kind in ("tables", "table_states", "dense", "dense_states")}
    assert sum(by_kind.values()) == sum(value.numel() * 4 for value in tensors.values())
    assert by_kind["tables"] == 4 * sum(value.numel() for key, value in tensors.items() if "embedding_bags" in key)
    assert by_kind["table_states"] == 4 * 16 * 8
    on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    assert sizes["on_disk"] == on_disk
    assert "norm" not in found["tables"][0] and "norm" not in found["members"][0]
    assert [one["name"] for one in found["tables"]] == [
        f"{g}/{c}" for g in ("shared", "solo", "solo+first_order") for c in ROWS
    ]


@pytest.mark.parametrize("name", ["sum", "column_sums", "exp_avg_sq"])
def test_untouched_rows_are_those_whose_state_is_zero(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_files, "BLOCK_BYTES", 3 * 4)
    tensors = state()
    del tensors["optimizer/tables/shared/C1/sum"]
    shape = {"sum": (10,), "column_sums": (20,), "exp_avg_sq": (10, 8)}[name]
    kept = torch.ones(shape)
    kept[2], kept[7] = 0.0, 0.0
    if name == "exp_avg_sq":
        kept[5, :7] = 0.0  # one column was touched
    tensors[f"optimizer/tables/shared/C1/{name}"] = kept
    one = table(of(store(tmp_path / "a", tensors)), "shared/C1")
    assert (one["rows_untouched"], one["untouched_by"]) == (2, f"{name} is zero")


def drawn(spec: TableSpec) -> Tensor:
    init = TableInit(seed=spec.seed, bound=spec.init_bound)
    rows, dim = spec.num_rows, spec.dim
    whole = initial_block(init, first_row=0, num_rows=rows, first_column=0, num_columns=dim, dim=dim)
    return torch.from_numpy(whole)


def test_without_state_they_are_those_with_the_initial_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "BLOCK_BYTES", 3 * 4 * 4)
    features = SourceFeatures(dense_names=("I1",), table_rows=ROWS, dictionary="d1")
    specs = {spec.name: spec for spec in build_task(small_run(text=TEXT), features=features).specs}
    start = drawn(specs["solo/C1"])
    start[4] += 1e-4
    tensors = state() | {TABLE.format("solo/C1"): start, TABLE.format("solo+first_order/C2"): torch.zeros(6, 4)}
    found = of(store(tmp_path / "a", tensors))
    one = table(found, "solo/C1")
    assert (one["rows_untouched"], one["untouched_by"]) == (9, "equal to the initial value")
    assert table(found, "solo/C2")["rows_untouched"] == 0
    assert table(found, "solo+first_order/C2")["rows_untouched"] == 6
    for number, line in enumerate(
        ("[checkpoint]\nstart_from = 'x'", "[checkpoint]\nresume = 'x'", "[members.solo]\nweights_from = 'x'")
    ):
        run = TEXT.replace("[members.solo]", line) if "solo" in line else TEXT + line
        one = table(of(store(tmp_path / f"{number}", tensors, run=run)), "solo/C1")
        assert one["rows_untouched"] is None and "unknown" in one["untouched_by"], line


def test_a_plan_that_is_none(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", state())
    for content in ("", "[]", '{"tables": {"a": {}}}'):
        (folder / "plan.json").write_text(content)
        with pytest.raises(CheckpointError, match="plan.json: not a plan"):
            of(folder, quick=True)
