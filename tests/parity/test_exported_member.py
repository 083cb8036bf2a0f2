"""An exported member gives the logits that the sharded ensemble gives; a mean of checkpoints is a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.ranks import RankPool
from tests.support.runs import small_run
from tests.support.state import State, whole_tensors
from tests.support.stored_checkpoints import quiet
from tests.support.training import score_run, train_run
from trainer.assembly import assemble_training, training_tensors
from trainer.checkpoints.averaging import Average, write_average
from trainer.checkpoints.export import MemberExport, load_member
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint, finished
from trainer.data.reading.batch import make_batch
from trainer.data.reading.opening import open_scoring_source
from trainer.runtime import Runtime

MEMBERS = ("deep", "cross", "dot", "factor")
# Pieces of rows, of columns and whole tables; own tables trained by an optimizer without state.
RUN = small_run(
    "--checkpoint.every={steps = 2}",
    "--checkpoint.keep_last=3",
    "--tables.shared.placement=column_wise",
    "--tables.shared.optimizer=adagrad",
    "--tables.own.optimizer=sgd",
)


@pytest.fixture(scope="module")
def run(ranks: Callable[[int], RankPool], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "run"
    ranks(2).run(train_run, RUN, str(folder))
    return folder


@pytest.fixture(scope="module")
def mean(run: Path) -> Path:
    folder = run.parent / "mean"
    write_average(Average.of(finished(str(run)), rule="wma"), folder=str(folder), advance=quiet)
    return folder


def logits_of_the_ensemble(checkpoint: str, output: Path, pool: RankPool) -> dict[str, np.ndarray]:
    pool.run(score_run, RUN, checkpoint, str(output))
    (file,) = output.glob("*.parquet")
    table = pq.read_table(file)
    return {name: table.column(f"logit_{name}").to_numpy() for name in MEMBERS}


@pytest.mark.parametrize("which", ["trained", "mean"])
def test_logits_of_one_process_equal_those_of_the_sharded_ensemble(
    which: str, run: Path, mean: Path, ranks: Callable[[int], RankPool], tmp_path: Path
) -> None:
    checkpoint = StoredCheckpoint.open(str(run if which == "trained" else mean))
    expected = logits_of_the_ensemble(checkpoint.folder, tmp_path / "predictions", ranks(2))
    source = open_scoring_source(RUN.data, parts=())
    rows = source.read(range(source.num_rows))
    batch = make_batch(rows, keys=list(source.features.table_rows), num_rows=len(rows), loss_weight=1.0)
    bags = {name: (batch.sparse[name].values(), batch.sparse[name].offsets()) for name in source.features.table_rows}
    for member in MEMBERS:
        path = tmp_path / f"{member}.safetensors"
        MemberExport.of(checkpoint, member=member).write(str(path), advance=quiet)
        with torch.no_grad():
            logits = load_member(str(path)).model(batch.dense_BN, bags).numpy()
        assert len(logits) == 50 and logits.std() > 1e-3
        np.testing.assert_allclose(logits, expected[member], rtol=1e-5, atol=1e-6, err_msg=member)


def start(runtime: Runtime, folder: str, *words: str) -> State:
    """Assembles a run in a new folder; gives the state it begins with."""
    config = small_run(
        *words, f"--run.folder={folder}", "--tables.shared.optimizer=adagrad", "--tables.own.optimizer=sgd"
    )
    training = assemble_training(config, folder=folder, runtime=runtime).training
    assert training.progress.step == 0
    return whole_tensors(dict(training_tensors(training.model, training.optimizer)), runtime=runtime)


def test_training_goes_on_from_a_mean_only_anew(mean: Path, ranks: Callable[[int], RankPool], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="CheckpointError: .*: the mean of 3 checkpoints, without optimizer state"):
        ranks(1).run(start, str(tmp_path / "resumed"), f"--checkpoint.resume={mean}")
    (begun,) = ranks(1).run(start, str(tmp_path / "anew"), f"--checkpoint.start_from={mean}")
    checkpoint = StoredCheckpoint.open(str(mean))
    for key in checkpoint.weights:
        np.testing.assert_array_equal(begun[key], torch.cat(list(checkpoint.blocks(key))).numpy(), err_msg=key)
    sums = [value for key, value in begun.items() if key.endswith("/sum")]
    assert len(sums) == 26 and not any(value.any() for value in sums)
