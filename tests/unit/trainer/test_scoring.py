"""Scoring: ranges and batches cut from row numbers, the same steps on every rank, each row once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from configs.errors import ChorusError
from modules.contracts import EnsembleOutput
from modules.merge import merge
from tests.unit.trainer.data.prepared import PartArrays, part_arrays, prepared_folder
from tests.unit.trainer.ranks import OneOfMany
from trainer.data.manifest import DataManifest
from trainer.data.reading.batch import Batch
from trainer.data.reading.source import PreparedSource, SourcePart
from trainer.prediction_files import PredictionFile, finish_folder, read_manifest
from trainer.scoring import ScoringJob, cut_ranges

PARTS = {"day_0": part_arrays(23, seed=1), "day_1": part_arrays(0), "day_2": part_arrays(10, seed=2)}
MEMBERS = ("deep", "solo")
PROVENANCE = {"data": {"dictionary": "d1"}}


class ReadOff(nn.Module):
    """Logits read off the rows; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []

    def forward(self, batch: Batch) -> tuple[Tensor, EnsembleOutput]:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append([int(row) for row in batch.row_B[batch.mask_B > 0]])
        assert len(batch.labels_B) == 4
        return torch.zeros(()), EnsembleOutput(batch.dense_BN.clone(), torch.zeros(2))


class Parts:
    """A source of which only the parts are asked for."""

    def __init__(self, sizes: list[int]) -> None:
        self.parts = tuple(SourcePart(name=f"p{i}", num_rows=size, files={}) for i, size in enumerate(sizes))


@given(sizes=st.lists(st.integers(0, 30), max_size=5), range_rows=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_ranges_hold_each_row_once(sizes: list[int], range_rows: int) -> None:
    ranges = cut_ranges(Parts(sizes), range_rows=range_rows)  # type: ignore[arg-type]
    numbers = [row for piece in ranges for row in range(piece.source_row, piece.source_row + piece.num_rows)]
    assert numbers == list(range(sum(sizes)))
    assert all(0 < piece.num_rows <= range_rows and piece.first_row % range_rows == 0 for piece in ranges)
    starts = {f"p{i}": sum(sizes[:i]) for i in range(len(sizes))}
    assert all(piece.source_row == starts[piece.part] + piece.first_row for piece in ranges)


def scored(
    tmp_path: Path, *, rank: int, world_size: int, rule: str = "mean_logit"
) -> tuple[ScoringJob, ReadOff, list[PredictionFile]]:
    root = prepared_folder(tmp_path / "data", PARTS)
    model = ReadOff().train()
    job = ScoringJob(
        model=model,
        source=PreparedSource(root=root, parts=list(PARTS)),
        member_names=MEMBERS,
        rule=rule,
        batch_size=4,
        range_rows=6,
        runtime=OneOfMany(rank=rank, world_size=world_size),  # type: ignore[arg-type]
    )
    output = tmp_path / f"of_{world_size}"
    output.mkdir(exist_ok=True)
    return job, model, job.run(str(output))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_row_is_scored_once_whatever_the_world(tmp_path: Path, world_size: int) -> None:
    files, steps, batches = [], [], []
    for rank in range(world_size):
        job, model, mine = scored(tmp_path, rank=rank, world_size=world_size)
        files += mine
        steps.append(len(model.batches))
        batches += [rows for rows in model.batches if rows]
    assert len(set(steps)) == 1, "a rank that stops early leaves the others waiting"
    assert job.expected == {"day_0": 23, "day_1": 0, "day_2": 10}
    output = tmp_path / f"of_{world_size}"
    finish_folder(str(output), files=files, expected=job.expected, members=MEMBERS, provenance={})
    # A row's batch is the same at every world size: cut from its range, whoever has it.
    ranges = [(0, 6), (6, 12), (12, 18), (18, 23), (0, 6), (6, 10)]
    cut = [list(range(first, min(first + 4, end))) for start, end in ranges for first in range(start, end, 4)]
    assert sorted(batches) == sorted(cut)
    for part, arrays in PARTS.items():
        of_part = sorted((file for file in files if file.part == part), key=lambda file: file.first_row)
        rows = [row for file in of_part for row in pq.read_table(output / file.path).to_pylist()]
        assert [row["row"] for row in rows] == list(range(len(arrays.labels)))
        assert [row["label"] for row in rows] == arrays.labels[:, 0].tolist()
        for place, member in enumerate(MEMBERS):
            assert [row[f"logit_{member}"] for row in rows] == arrays.dense[:, place].tolist()


@pytest.mark.parametrize("rule", ["mean_logit", "mean_probability", "median"])
def test_the_merge_is_the_rules(tmp_path: Path, rule: str) -> None:
    _, _, files = scored(tmp_path, rank=0, world_size=1, rule=rule)
    last = pq.read_table(tmp_path / "of_1" / files[-1].path)
    logits = torch.from_numpy(PARTS["day_2"].dense[6:]).double()
    assert last.column("merged").to_pylist() == merge(logits, rule=rule).float().tolist()


def test_more_ranks_than_ranges_leave_some_with_padding_alone(tmp_path: Path) -> None:
    _, model, files = scored(tmp_path, rank=7, world_size=8)
    assert files == []
    assert model.batches == [[], []]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    arrays = PartArrays(dense=PARTS["day_2"].dense.copy(), sparse=PARTS["day_2"].sparse, labels=PARTS["day_2"].labels)
    monkeypatch.setitem(PARTS, "day_2", arrays)
    forward = ReadOff.forward

    def broken(self: ReadOff, batch: Batch) -> tuple[Tensor, EnsembleOutput]:
        loss, output = forward(self, batch)
        output.logits_BM[(batch.part_B == 2) & (batch.row_B == 8), 1] = value
        return loss, output

    monkeypatch.setattr(ReadOff, "forward", broken)
    with pytest.raises(ChorusError) as refused:
        scored(tmp_path, rank=0, world_size=1)
    assert str(refused.value) == (
        f"member solo: logit {value} at row 8 of day_2; the checkpoint's weights are not finite, take an earlier one"
    )


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_rows_made_ahead_are_scored_the_same(tmp_path: Path, prefetch: int) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    model = ReadOff().train()
    job = ScoringJob(
        model=model,
        source=PreparedSource(root=root, parts=list(PARTS)),
        member_names=MEMBERS,
        rule="median",
        batch_size=4,
        range_rows=6,
        runtime=OneOfMany(),  # type: ignore[arg-type]
        prefetch_batches=prefetch,
    )
    files = job.run(str(tmp_path))
    assert [(file.part, file.first_row, file.num_rows) for file in files] == [
        ("day_0", 0, 6),
        ("day_0", 6, 6),
        ("day_0", 12, 6),
        ("day_0", 18, 5),
        ("day_2", 0, 6),
        ("day_2", 6, 4),
    ]
    logits = pq.read_table(tmp_path / files[3].path).column("logit_solo").to_pylist()
    assert logits == PARTS["day_0"].dense[18:, 1].tolist()
    assert job.unlabelled == ()


def test_a_part_without_labels_gets_none(tmp_path: Path) -> None:
    root = prepared_folder(tmp_path / "data", PARTS)
    manifest = DataManifest.read(root)
    parts = tuple(
        dataclasses.replace(
            part, label_sum=None, files={role: file for role, file in part.files.items() if role != "labels"}
        )
        if part.name == "day_2"
        else part
        for part in manifest.parts
    )
    dataclasses.replace(manifest, parts=parts).write(root)
    job = ScoringJob(
        model=ReadOff().train(),
        source=PreparedSource(root=root, parts=["day_0", "day_2"]),
        member_names=MEMBERS,
        rule="median",
        batch_size=4,
        range_rows=30,
        runtime=OneOfMany(),  # type: ignore[arg-type]
    )
    assert job.unlabelled == ("day_2",)
    labelled, unlabelled = job.run(str(tmp_path))
    table = pq.read_table(tmp_path / unlabelled.path)
    assert table.column("label").to_pylist() == [None] * 10
    assert table.schema.field("label").type == pq.read_table(tmp_path / labelled.path).schema.field("label").type
    assert table.column("logit_deep").to_pylist() == PARTS["day_2"].dense[:, 0].tolist()
    assert (labelled.label_sum, unlabelled.label_sum) == (int(PARTS["day_0"].labels.sum()), None)
    figures = finish_folder(
        str(tmp_path), files=[labelled, unlabelled], expected=job.expected, members=MEMBERS, provenance=PROVENANCE
    )
    assert figures == {}
    written = read_manifest(str(tmp_path))
    assert written.metrics == {} and written.files[1].label_sum is None
