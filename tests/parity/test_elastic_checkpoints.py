"""A state saved by any number of ranks under any cut is read by any number under any other; one that fails is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import ChorusError
from configs.training_schema import Checkpoint
from tests.support.cut_states import assert_same_tensors, cut, some_tensors
from tests.support.runs import small_run
from trainer.assembly import assemble_training
from trainer.checkpoints.loading import Wanted, load
from trainer.checkpoints.manifest import read_manifest, verify
from trainer.checkpoints.pieces import Pieces, State
from trainer.checkpoints.run_checkpoints import RunCheckpoints, Snapshot
from trainer.checkpoints.state_files import StateWriter
from trainer.loop import train
from trainer.reporting import Reporter
from trainer.runtime import Runtime

CUTS = {1: (2, 3), 2: (1, 2), 4: (20, 1)}  # rows x columns of pieces; 20 are more than there are rows
TABLE = "g/C1"
SUM, COLUMN_SUMS = f"optimizer/tables/{TABLE}/sum", f"optimizer/tables/{TABLE}/column_sums"
COLUMN_PIECES = ((0, 2), (2, 6))


def tensors() -> dict[str, Tensor]:
    found = some_tensors(3)
    return {**found, "column_sums": found["optimizer/row_sums"].repeat(2) + torch.arange(26)}


def save(runtime: Runtime, folder: Path) -> None:
    rows, columns = CUTS[runtime.world_size]
    all_of_them = tensors()
    sums = all_of_them.pop("column_sums")
    state: dict[str, Any] = {
        **cut(all_of_them, rows=rows, columns=columns, rank=runtime.rank, world_size=runtime.world_size)
    }
    owners = [piece % runtime.world_size for piece in range(2)]
    state[COLUMN_SUMS] = Pieces(
        shape=(26,),
        parts={(13 * piece,): sums[13 * piece :][:13] for piece in range(2) if owners[piece] == runtime.rank},
    )
    facts = {"step": 3, "progress": {}, "model": {}, "data": {}, "learning": {}, "quality": None}
    checkpoints = RunCheckpoints(folder=str(folder), section=Checkpoint(), ranks=runtime.open_side_group())
    checkpoints.save(Snapshot(state=state, facts={**facts, "column_pieces": {TABLE: COLUMN_PIECES}}, texts={}))
    checkpoints.wait()


def load_and_compare(runtime: Runtime, folder: Path) -> list[str]:
    """Loads under this world's cut; gives what is said."""
    manifest = read_manifest(f"{folder}/step_0000000003")
    verify(manifest, ranks=runtime.ranks)
    rows, columns = CUTS[runtime.world_size]
    rank, world_size = runtime.rank, runtime.world_size
    expected = tensors()
    sums = expected.pop("column_sums").view(2, 13)
    here = cut(
        {key: torch.zeros_like(value) for key, value in expected.items()},
        rows=rows,
        columns=columns,
        rank=rank,
        world_size=world_size,
    )
    first, last = rank * 13 // world_size, (rank + 1) * 13 // world_size
    my_sums = torch.zeros(last - first, dtype=torch.float64)
    state: State = {**here, SUM: Pieces(shape=(13,), parts={(first,): my_sums})}
    said: list[str] = []
    load(
        manifest,
        Wanted(state=state, keys={key: key for key in state}, column_pieces={}),
        ranks=runtime.ranks,
        say=said.append,
    )
    assert_same_tensors(here, cut(expected, rows=rows, columns=columns, rank=rank, world_size=world_size))
    torch.testing.assert_close(my_sums, ((2 * sums[0] + 6 * sums[1]) / 8)[first:last], rtol=1e-12, atol=0)
    return said


@pytest.mark.parametrize("saved_by", [1, 2, 4])
def test_what_any_number_of_ranks_saved_any_number_loads(ranks, tmp_path, saved_by):
    ranks(saved_by).run(save, tmp_path)
    files = sorted(path.name for path in (tmp_path / "step_0000000003" / "state").glob("*.safetensors"))
    assert files == [f"rank_{rank}_0.safetensors" for rank in range(saved_by)]
    for loaded_by in (1, 2, 4):
        for said in ranks(loaded_by).run(load_and_compare, tmp_path):
            assert said == [
                "1 tables (g/C1) kept row-wise sums per column piece; each sum is now the mean of its pieces, weighted"
                " by their columns"
            ]


def train_where_rank_1_cannot_write(runtime: Runtime, folder: str) -> tuple[str, int]:
    """The real loop; gives what it ends with, and at which step."""
    words = ("--checkpoint.every.steps=50", "--train.log_every.steps=1", "--train.until={steps = 100}")
    config = small_run(*words)
    training = assemble_training(config, folder=folder, runtime=runtime).training
    reporter = Reporter(folder=folder, resumed_step=0, runtime=runtime)
    write = StateWriter.write_data

    def write_or_fail(writer: StateWriter, *args: Any) -> Any:
        if runtime.rank == 1:
            raise OSError("no space left")
        return write(writer, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ChorusError) as failed:
        patch.setattr(StateWriter, "write_data", write_or_fail)
        train(training, config=config, reporter=reporter, runtime=runtime)
    reporter.close()
    return str(failed.value), training.progress.step


def test_a_background_write_that_fails_ends_the_run_soon_on_every_rank(ranks, tmp_path):
    (sentence, step), other = ranks(2).run(train_where_rank_1_cannot_write, str(tmp_path))
    assert (sentence, step) == other
    assert sentence.startswith(f"cannot save {tmp_path}/checkpoints/step_0000000050: rank 1: no space left")
    assert 50 < step < 100, "it was not the next save that found out"
    assert not list(tmp_path.glob("checkpoints/*/manifest.json"))
