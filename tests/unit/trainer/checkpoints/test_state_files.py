"""State files: safetensors and a JSON index; every value comes back, and no byte that is read is run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from tests.support.cut_states import CUT_KEYS, assert_same_tensors, cut, some_tensors
from trainer.checkpoints import state_files
from trainer.checkpoints.pieces import LoadPlanner, Pieces, SavePlanner, State
from trainer.checkpoints.state_files import StateReader, StateWriter, read_index, read_tensor, row_blocks


def write(folder: Path, state: State, **options: Any) -> StateWriter:
    folder.mkdir(exist_ok=True)
    writer = StateWriter(str(folder), **options)
    dcp.save(dict(state), storage_writer=writer, planner=SavePlanner(), no_dist=True)
    return writer


def read(folder: Path, state: State) -> State:
    dcp.load(dict(state), storage_reader=StateReader(str(folder)), planner=LoadPlanner(), no_dist=True)
    return state


def zeros() -> dict[str, torch.Tensor]:
    return {key: torch.zeros_like(value) for key, value in some_tensors().items()}


@pytest.mark.parametrize("loaded", [(1, 1), (4, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("saved", [(1, 1), (4, 1), (1, 4), (2, 3), (20, 1)])
def test_every_cut_loads_under_every_other(tmp_path: Path, saved: tuple[int, int], loaded: tuple[int, int]) -> None:
    write(tmp_path, cut(some_tensors(3), rows=saved[0], columns=saved[1]))
    found = read(tmp_path, cut(zeros(), rows=loaded[0], columns=loaded[1]))
    assert_same_tensors(found, cut(some_tensors(3), rows=loaded[0], columns=loaded[1]))
    index = read_index(str(tmp_path))
    assert_same_tensors({key: read_tensor(str(tmp_path), key, index=index) for key in index}, some_tensors(3))


def test_a_part_of_the_rows_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, cut(some_tensors(3), rows=2, columns=2))
    part = torch.zeros(5, 3)
    read(tmp_path, {"model/table": Pieces(shape=(13, 8), parts={(6, 3): part})})
    assert torch.equal(part, some_tensors(3)["model/table"][6:11, 3:6])
    index = read_index(str(tmp_path))
    blocks = list(row_blocks(str(tmp_path), "model/table", index=index, rows=range(4, 11)))
    assert torch.equal(torch.cat(blocks), some_tensors(3)["model/table"][4:11])


def test_values_that_are_scattered_in_memory_are_written_in_order(tmp_path: Path) -> None:
    values = torch.randn(6, 10)
    state = {
        "turned": values.t(),
        "every_third": values[:, ::3],
        "backward_rows": values[[5, 0]],
        "spread": values[:, 2],
    }
    assert not state["turned"].is_contiguous() and not state["spread"].is_contiguous()
    write(tmp_path, state)
    assert_same_tensors(read(tmp_path, {key: torch.zeros_like(value) for key, value in state.items()}), state)


def test_special_values_keep_their_bits(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800000, -0x80000000, 1, 0x7F7FFFFF], dtype=torch.int32)
    write(tmp_path, {"a": bits.view(torch.float32)})
    found = read(tmp_path, {"a": torch.zeros(5)})["a"]
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found.view(torch.int32), bits)


def test_blocks_that_do_not_divide_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for num_bytes in (1, 70, 200):  # less than a row of 32 bytes, two and a bit, six and a bit
        monkeypatch.setattr(state_files, "BLOCK_BYTES", num_bytes)
        folder = tmp_path / str(num_bytes)
        write(folder, cut(some_tensors(3), rows=2, columns=3))
        assert_same_tensors(read(folder, zeros()), some_tensors(3))


def test_a_limit_of_bytes_makes_many_small_files(tmp_path: Path) -> None:
    writer = write(tmp_path, cut(some_tensors(3), rows=4, columns=2), most_file_bytes=100)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 8
    assert sorted(writer.files) == sorted([*files, "index.json"])
    for name in files:
        with safetensors.safe_open(tmp_path / name, "pt") as file:
            assert len(file.keys()) == 1 or sum(file.get_tensor(key).nbytes for key in file.keys()) <= 100  # noqa: SIM118
    assert_same_tensors(read(tmp_path, zeros()), some_tensors(3))


def test_the_hashes_are_of_what_lies_on_the_disk(tmp_path: Path) -> None:
    writer = write(tmp_path, cut(some_tensors(3), rows=4, columns=2), most_file_bytes=300)
    assert set(writer.files) == {path.name for path in tmp_path.iterdir()}
    for name, proof in writer.files.items():
        content = (tmp_path / name).read_bytes()
        assert proof == {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("most_file_bytes", [64, 1 << 30])
def test_the_library_of_safetensors_reads_every_file(tmp_path: Path, most_file_bytes: int) -> None:
    tensors = some_tensors(3)
    write(tmp_path, cut(tensors, rows=2, columns=2), most_file_bytes=most_file_bytes)
    found: dict[str, torch.Tensor] = {}
    for path in tmp_path.glob("*.safetensors"):
        in_file = safetensors.torch.load_file(path)
        assert not set(in_file) & set(found)
        found |= in_file
    for key, value in tensors.items():
        if key not in CUT_KEYS:
            assert torch.equal(found[key], value) and found[key].dtype == value.dtype
    assert torch.equal(found["model/table@7,4"], tensors["model/table"][7:, 4:])
    assert torch.equal(found["optimizer/row_sums@7"], tensors["optimizer/row_sums"][7:])


def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path) -> None:
    write(tmp_path, some_tensors(3))
    path = tmp_path / "rank_0_0.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointException, match="rank_0_0.safetensors ends . bytes early"):
        read(tmp_path, zeros())


@pytest.mark.parametrize("change", [{"format": "others"}, {"format_version": 99}])
def test_another_index_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, some_tensors(3))
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="'others' of version|of version 99"):
        read_index(str(tmp_path))


def test_types_are_changed_only_where_no_value_is(tmp_path: Path) -> None:
    write(
        tmp_path, {"step": torch.tensor(12), "narrow": torch.randn(4, 2).bfloat16(), "wide": torch.tensor([1.0, 0.1])}
    )
    found = read(tmp_path, {"step": torch.tensor(0.0), "narrow": torch.zeros(4, 2)})
    index = read_index(str(tmp_path))
    narrow = read_tensor(str(tmp_path), "narrow", index=index)
    assert_same_tensors(found, {"step": torch.tensor(12.0), "narrow": narrow.float()})
    with pytest.raises(CheckpointException, match="saved as torch.float32, whose values torch.bfloat16 cannot hold"):
        read(tmp_path, {"wide": torch.zeros(2).bfloat16()})


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.marker, "w"))


def test_no_byte_that_is_read_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "it_went_off"
    bomb = pickle.dumps(Bomb(marker))
    pickle.loads(bomb).close()
    assert marker.exists(), "the bomb is a dud"
    marker.unlink()
    folder = tmp_path / "state"
    write(folder, some_tensors(3))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle is read")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, refuse)
    assert_same_tensors(read(folder, zeros()), some_tensors(3))
    torch.save({"a": Bomb(marker)}, tmp_path / "bomb.pt")
    for path in folder.iterdir():
        whole = path.read_bytes()
        for content in (bomb, (tmp_path / "bomb.pt").read_bytes()):
            path.write_bytes(content)
            with contextlib.suppress(CheckpointException):  # what is long enough is read as other numbers
                read(folder, zeros())
            if path.name == "index.json":
                with pytest.raises(ValueError):
                    read_index(str(folder))
        path.write_bytes(whole)
    assert not marker.exists()
