"""Scoring: batches cut from row numbers, the same steps on every rank, each row once, several models side by side."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from modules.contracts import EnsembleOutput
from tests.unit.trainer.data.prepared import part_arrays, prepared_folder
from tests.unit.trainer.ranks import OneOfMany
from trainer.data.reading.batch import Batch
from trainer.data.reading.source import PreparedSource
from trainer.predictions.range_files import ScoredRange
from trainer.predictions.row_ranges import cut_ranges
from trainer.scoring import ScoringJob, ScoringWork

PARTS = {"day_0": part_arrays(23, seed=1), "day_1": part_arrays(0), "day_2": part_arrays(10, seed=2)}
NAMES = [f"{part}-{first:012d}" for part, first in [("day_0", 0), ("day_0", 6), ("day_0", 12), ("day_0", 18)]]
NAMES += ["day_2-000000000000", "day_2-000000000006"]


class ReadOff(nn.Module):
    """Logits read off the rows, times a factor; keeps what it was given."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.batches: list[list[int]] = []

    def forward(self, batch: Batch) -> tuple[Tensor, EnsembleOutput]:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append([int(row) for row in batch.row_B[batch.mask_B > 0]])
        assert len(batch.labels_B) == 4
        return torch.zeros(()), EnsembleOutput(batch.dense_BN * self.factor, torch.zeros(2))


def work_on(tmp_path: Path, *, done: Collection[str] = (), prefetch: int = 0) -> ScoringWork:
    source = PreparedSource(root=prepared_folder(tmp_path / "data", PARTS), parts=list(PARTS))
    ranges = cut_ranges(source.parts, range_rows=6)
    return ScoringWork(source=source, ranges=ranges, batch_size=4, done=done, prefetch_batches=prefetch)


def scored(work: ScoringWork, *models: ReadOff, rank: int = 0, world_size: int = 1) -> list[ScoredRange]:
    found: list[ScoredRange] = []
    runtime = OneOfMany(rank=rank, world_size=world_size)
    ScoringJob(models=models, work=work, runtime=runtime).run(found.append)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_row_is_scored_once_whatever_the_world(tmp_path: Path, world_size: int) -> None:
    work, found, steps, batches = work_on(tmp_path), list[ScoredRange](), [], []
    for rank in range(world_size):
        model = ReadOff().train()
        found += scored(work, model, rank=rank, world_size=world_size)
        steps.append(len(model.batches))
        batches += [rows for rows in model.batches if rows]
    assert set(steps) == {work.num_steps(world_size)}, "a rank that stops early leaves the others waiting"
    # A row's batch is the same at every world size: cut from its range, whoever has it.
    ranges = [(0, 6), (6, 12), (12, 18), (18, 23), (0, 6), (6, 10)]
    cut = [list(range(first, min(first + 4, end))) for start, end in ranges for first in range(start, end, 4)]
    assert sorted(batches) == sorted(cut)
    assert sorted(one.rows.name for one in found) == NAMES
    for one in found:
        here = slice(one.rows.first_row, one.rows.first_row + one.rows.num_rows)
        arrays = PARTS[one.rows.part]
        assert one.copied is None
        assert one.row_N.tolist() == list(range(here.start, here.stop))
        np.testing.assert_array_equal(one.labels_N, arrays.labels[here, 0])
        np.testing.assert_array_equal(one.logits_NM.numpy(), arrays.dense[here])


def test_more_ranks_than_ranges_leave_some_with_padding_alone(tmp_path: Path) -> None:
    model = ReadOff()
    assert scored(work_on(tmp_path), model, rank=7, world_size=8) == []
    assert model.batches == [[], []]


def test_several_models_lie_side_by_side(tmp_path: Path) -> None:
    first, *_ = scored(work_on(tmp_path), ReadOff(), ReadOff(2.0), ReadOff(-1.0))
    dense = PARTS["day_0"].dense[:6]
    np.testing.assert_array_equal(first.logits_NM.numpy(), np.hstack([dense, 2 * dense, -dense]))


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_rows_made_ahead_are_scored_the_same(tmp_path: Path, prefetch: int) -> None:
    found = scored(work_on(tmp_path, prefetch=prefetch), ReadOff())
    assert [one.rows.name for one in found] == NAMES
    np.testing.assert_array_equal(found[3].logits_NM.numpy(), PARTS["day_0"].dense[18:])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_what_is_done_is_left_out_and_the_rest_stays_where_it_was(tmp_path: Path, world_size: int) -> None:
    done = {NAMES[0], NAMES[1], NAMES[4]}
    whole, rest = work_on(tmp_path), work_on(tmp_path, done=done)
    assert (whole.num_rows, rest.num_rows) == (33, 15)
    steps = set()
    for rank in range(world_size):
        model = ReadOff()
        before = [one.rows.name for one in scored(whole, ReadOff(), rank=rank, world_size=world_size)]
        now = [one.rows.name for one in scored(rest, model, rank=rank, world_size=world_size)]
        assert now == [name for name in before if name not in done]
        steps.add(len(model.batches))
    assert len(steps) == 1
    assert work_on(tmp_path, done=NAMES).num_steps(world_size) == 0


def test_progress_speaks_of_the_rows_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.scoring._SAY_SECONDS", 0.0)
    runtime = OneOfMany()
    job = ScoringJob(models=[ReadOff()], work=work_on(tmp_path, done=NAMES[:4]), runtime=runtime)  # type: ignore[arg-type]
    job.run(lambda _one: None)
    assert len(runtime.said) == 3
    assert runtime.said[-1].startswith("scored about 10 of 10 rows  ") and runtime.said[-1].endswith("ETA 0:00")
