"""A checkpoint read without ranks: found, named by table and member, in blocks of rows whatever its pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from configs.errors import CheckpointError
from tests.support.stored_checkpoints import DENSE, TABLE, state, store
from trainer.checkpoints import state_files
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint, finished, newest_checkpoint, step_folders


@pytest.mark.parametrize("pieces", [(1, 1), (3, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("rows_at_once", [1, 4, 100])
def test_blocks_are_the_tensor(
    pieces: tuple[int, int], rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_files, "BLOCK_BYTES", rows_at_once * 8 * 4)
    tensors = state()
    checkpoint = StoredCheckpoint.open(str(store(tmp_path / "a", tensors, pieces=pieces)))
    for key, value in tensors.items():
        blocks = list(checkpoint.blocks(key))
        assert torch.equal(torch.cat(blocks) if value.dim() else blocks[0], value), key
    key = TABLE.format("shared/C1")
    blocks = list(checkpoint.blocks(key, rows=range(2, 9)))
    assert [len(block) for block in blocks] == {1: [1] * 7, 4: [4, 3], 100: [7]}[rows_at_once]
    assert torch.equal(torch.cat(blocks), tensors[key][2:9])


def test_what_is_in_it(tmp_path: Path) -> None:
    tensors = state()
    checkpoint = StoredCheckpoint.open(str(store(tmp_path / "a", tensors)))
    assert set(checkpoint.weights) == {key for key in tensors if key.startswith("model/")}
    assert checkpoint.table_weights()["solo+first_order/C2"] == TABLE.format("solo+first_order/C2")
    assert checkpoint.table_states("shared/C1") == {"sum": "optimizer/tables/shared/C1/sum"}
    assert checkpoint.table_states("solo/C1") == {}
    assert checkpoint.member_weights("deep")["mlp.layers.2.bias"] == DENSE.format("deep.mlp.layers.2.bias")
    assert len(checkpoint.member_weights("deep")) == 4
    assert checkpoint.num_values(TABLE.format("shared/C1")) == 80
    assert checkpoint.num_bytes([TABLE.format("shared/C1"), DENSE.format("deep.mlp.layers.2.bias")]) == 4 * 81


def test_a_run_stands_for_its_newest_finished_checkpoint(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        store(tmp_path / "run" / "checkpoints" / f"step_{step:010d}", state(), step=step)
    last = tmp_path / "run" / "checkpoints" / "step_0000000011"
    (last / "manifest.json").unlink()
    assert StoredCheckpoint.open(str(tmp_path / "run")).manifest.step == 10
    assert newest_checkpoint(str(tmp_path / "run" / "checkpoints")).endswith("step_0000000010")
    assert [len(found(str(tmp_path / "run"))) for found in (step_folders, finished)] == [3, 2]
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints was finished"):
        StoredCheckpoint.open(str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="no checkpoint in '.*nowhere'; name a checkpoint's folder"):
        StoredCheckpoint.open(str(tmp_path / "nowhere"))


def test_an_index_that_cannot_be_read(tmp_path: Path) -> None:
    folder = store(tmp_path / "a", state())
    for content in ("", "[]", '{"format": "chorus-state", "format_version": 9, "tensors": {}}'):
        (folder / "state" / "index.json").write_text(content)
        with pytest.raises(CheckpointError, match="its index cannot be read"):
            StoredCheckpoint.open(str(folder))


def test_values_that_are_in_no_file_are_not_made_up(tmp_path: Path) -> None:
    folder, key = store(tmp_path / "a", state(), pieces=(2, 2)), TABLE.format("shared/C1")
    path = folder / "state" / "index.json"
    index = json.loads(path.read_text())
    gone = index["tensors"][key]["parts"].pop()
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="has 80 values, its parts 60"):
        list(StoredCheckpoint.open(str(folder)).blocks(key))
    index["tensors"][key]["parts"].append(gone)
    path.write_text(json.dumps(index))
    (folder / "state" / gone["file"]).write_bytes(b"")
    with pytest.raises(CheckpointError, match="shared/C1.* cannot be read .*bytes early"):
        list(StoredCheckpoint.open(str(folder)).blocks(key))
    (folder / "state" / gone["file"]).unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read .*inspect_checkpoint.py verify"):
        list(StoredCheckpoint.open(str(folder)).blocks(key))
