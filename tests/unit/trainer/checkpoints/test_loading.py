"""Loading: by key into live tensors, with sums of column pieces put together and everything else exact or refused."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from tests.support.cut_states import assert_same_tensors, cut, some_tensors
from tests.unit.trainer.checkpoints.made import refusal, run_checkpoints, save
from trainer.checkpoints.loading import Wanted, left_out, load
from trainer.checkpoints.manifest import CheckpointManifest, read_manifest
from trainer.checkpoints.pieces import Pieces, State
from trainer.runtime import Runtime

SUM = "optimizer/tables/shared/C1/sum"
COLUMN_SUMS = "optimizer/tables/shared/C1/column_sums"
PIECES = ((0, 3), (3, 5))  # [first column, columns] of 8


def wanted(state: State, *, column_pieces: dict[str, list[tuple[int, int]]] | None = None, **renamed: str) -> Wanted:
    keys = {key: key for key in state} | {key.replace("_", "/"): source for key, source in renamed.items()}
    return Wanted(state=state, keys=keys, column_pieces=column_pieces or {})


def saved(folder: Path, runtime: Runtime, state: State, **facts: object) -> CheckpointManifest:
    return read_manifest(str(save(run_checkpoints(folder, runtime.ranks), 7, state=state, **facts)))


def test_what_is_asked_for_is_loaded_in_place(tmp_path: Path, runtime: Runtime) -> None:
    manifest = saved(tmp_path, runtime, cut(some_tensors(3), rows=2, columns=2))
    zeros = {key: torch.zeros_like(value) for key, value in some_tensors().items()}
    said: list[str] = []
    load(manifest, wanted(cut(zeros, rows=3, columns=1)), ranks=runtime.ranks, say=said.append)
    assert_same_tensors(zeros, some_tensors(3))
    assert said == []


def test_a_tensor_is_taken_from_another_key(tmp_path: Path, runtime: Runtime) -> None:
    manifest = saved(tmp_path, runtime, {"model/a": torch.ones(2), "model/b": torch.full((2,), 5.0)})
    mine = {"model/a": torch.zeros(2)}
    load(manifest, wanted(mine, model_a="model/b"), ranks=runtime.ranks, say=print)
    assert mine["model/a"].tolist() == [5.0, 5.0]


def test_what_nobody_asks_for_is_told(tmp_path: Path, runtime: Runtime) -> None:
    manifest = saved(
        tmp_path, runtime, {"a": torch.ones(1), "b": torch.ones(1), "c": torch.ones(1), COLUMN_SUMS: torch.ones(4)}
    )
    assert left_out(manifest, wanted({"b": torch.ones(1)}), ranks=runtime.ranks) == ["a", "c", COLUMN_SUMS]
    asked = wanted({"a": torch.ones(1), "b": torch.ones(1), SUM: torch.ones(2)})
    assert left_out(manifest, asked, ranks=runtime.ranks) == ["c"]


def test_a_tensor_that_is_absent_or_of_another_shape_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    manifest = saved(tmp_path, runtime, {"model/a": torch.ones(2, 3)})
    for key, mine, found in (
        ("model/b", torch.zeros(2), "nothing"),
        ("model/a", torch.zeros(3, 2), "a tensor of shape [2, 3]"),
        ("model/a", torch.zeros(()), "a tensor of shape [2, 3]"),
    ):
        asked = wanted({key: mine})
        sentence = refusal(lambda asked=asked: load(manifest, asked, ranks=runtime.ranks, say=print))  # type: ignore[misc]
        assert sentence == (
            f"{manifest.folder}: {key}: {found} in the checkpoint, where this run has one of shape {list(mine.shape)};"
            " take a checkpoint of this model"
        )
        assert not mine.any()


def test_values_that_a_type_cannot_hold_are_refused(tmp_path: Path, runtime: Runtime) -> None:
    manifest = saved(tmp_path, runtime, {"model/a": torch.tensor([0.1])})
    sentence = refusal(
        lambda: load(manifest, wanted({"model/a": torch.zeros(1).bfloat16()}), ranks=runtime.ranks, say=print)
    )
    assert sentence == (
        f"cannot load {manifest.folder}: rank 0: model/a: saved as torch.float32, whose values torch.bfloat16 cannot"
        " hold exactly"
    )


def test_an_index_that_is_none_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    manifest = saved(tmp_path, runtime, {"model/a": torch.ones(1)})
    index = Path(manifest.folder) / "state" / "index.json"
    good = json.loads(index.read_text())
    for body in ("", "{", "[]", "{}", json.dumps(good | {"tensors": [1]}), json.dumps(good | {"format_version": 0})):
        index.write_text(body)
        sentence = refusal(lambda: load(manifest, wanted({"model/a": torch.zeros(1)}), ranks=runtime.ranks, say=print))
        assert sentence.startswith(f"{index.parent}: its index cannot be read (")
        assert sentence.endswith("); take another checkpoint")


def column_sums(tmp_path: Path, runtime: Runtime) -> tuple[CheckpointManifest, Tensor]:
    sums = torch.rand(2, 10)
    flat = sums.flatten()
    state = {COLUMN_SUMS: Pieces(shape=(20,), parts={(0,): flat[:10], (10,): flat[10:]})}
    return saved(tmp_path, runtime, state, column_pieces={"shared/C1": PIECES}), sums


def test_sums_of_column_pieces_become_their_mean_by_width(tmp_path: Path, runtime: Runtime) -> None:
    manifest, sums = column_sums(tmp_path, runtime)
    expected = (3 * sums[0] + 5 * sums[1]) / 8
    said: list[str] = []
    whole = torch.zeros(10)
    load(manifest, wanted({SUM: whole}), ranks=runtime.ranks, say=said.append)
    torch.testing.assert_close(whole, expected, rtol=1e-6, atol=0)
    assert said == [
        "1 tables (shared/C1) kept row-wise sums per column piece; each sum is now the mean of its pieces, weighted by"
        " their columns"
    ]
    in_parts = torch.zeros(10)
    parts = {(0,): in_parts[:4], (4,): in_parts[4:]}
    load(manifest, wanted({SUM: Pieces(shape=(10,), parts=parts)}), ranks=runtime.ranks, say=said.append)
    assert torch.equal(in_parts, whole)


def test_sums_of_the_same_column_pieces_are_taken_as_they_are(tmp_path: Path, runtime: Runtime) -> None:
    manifest, sums = column_sums(tmp_path, runtime)
    mine = torch.zeros(20)
    same = wanted({COLUMN_SUMS: mine}, column_pieces={"shared/C1": list(PIECES)})
    said: list[str] = []
    load(manifest, same, ranks=runtime.ranks, say=said.append)
    assert torch.equal(mine, sums.flatten()) and said == []


def test_sums_of_other_column_pieces_are_refused(tmp_path: Path, runtime: Runtime) -> None:
    manifest, _ = column_sums(tmp_path, runtime)
    other = wanted({COLUMN_SUMS: torch.zeros(20)}, column_pieces={"shared/C1": [(0, 4), (4, 4)]})
    assert refusal(lambda: load(manifest, other, ranks=runtime.ranks, say=print)) == (
        "tables shared/C1: rowwise_adagrad keeps a sum per column piece under this plan ([[0, 4], [4, 4]]), and"
        f" {manifest.folder} has cut into columns [[0, 3], [3, 5]], from which those cannot be told; give the table the"
        " old placement, or one that keeps rows whole"
    )


def test_sums_of_whole_rows_do_not_go_into_column_pieces(tmp_path: Path, runtime: Runtime) -> None:
    manifest = saved(tmp_path, runtime, {SUM: torch.rand(10)})
    cut_here = wanted({COLUMN_SUMS: torch.zeros(20)}, column_pieces={"shared/C1": list(PIECES)})
    assert refusal(lambda: load(manifest, cut_here, ranks=runtime.ranks, say=print)) == (
        "tables shared/C1: rowwise_adagrad keeps a sum per column piece under this plan ([[0, 3], [3, 5]]), and"
        f" {manifest.folder} has one sum for each whole row, from which those cannot be told; give the table the old"
        " placement, or one that keeps rows whole"
    )
