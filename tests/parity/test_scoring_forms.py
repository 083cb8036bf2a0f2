"""One checkpoint scored in every form: sharded, quantised, in bfloat16, copies as one, and exported without ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import RunConfig
from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import settings_for
from tests.support.ranks import RankPool
from tests.support.runs import small_run
from tests.support.training import score_run, train_run
from tools import inspect_checkpoint
from trainer.checkpoints.exported_ensemble import bags_of, load_ensemble
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.preparation import prepare
from trainer.data.reading.opening import open_scoring_source
from trainer.predictions.reading import Predictions

TEXT = """
[data]
shuffle_window = 64
train = ["a"]
[train]
batch_size = 32
until = { steps = 14 }
[score]
parts = ["b"]
batch_size = 64
[tables.shared]
dim = 8
lr = 0.1
[tables.own]
dim = 6
lr = 0.02
placement = "data_parallel"
[members.deep]
copies = 3
arch = { kind = "mlp", hidden = [16, 8], batch_norm = true }
[members.ids]
numeric = "ids"
arch = { kind = "mlp", hidden = [8] }
[members.factor]
tables = "own"
arch = { kind = "deepfm", hidden = [8] }
[members.line]
tables = "own"
arch = { kind = "lr" }
"""
MEMBERS = ("deep_1", "deep_2", "deep_3", "ids", "factor", "line")
ROWS = 300


@pytest.fixture(scope="module")
def run(ranks: Callable[[int], RankPool], tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    """A prepared folder with numbers and their ids, and a run trained on it by two ranks."""
    folder = tmp_path_factory.mktemp("forms")
    logs = [
        write_log(folder / f"{part}.tsv", synthetic_lines(rows, seed=rows)) for part, rows in (("a", 450), ("b", ROWS))
    ]
    prepare(settings_for(logs, folder / "prepared", input_format=CriteoFormat(numerics="both")))
    config = small_run(f"--data.root={folder}/prepared", text=TEXT)
    ranks(2).run(train_run, config, str(folder / "run"))
    return config, folder / "run"


@pytest.fixture(scope="module")
def sharded(run: tuple[RunConfig, Path], ranks: Callable[[int], RankPool]) -> Predictions:
    return scored(run, ranks, "sharded")


def scored(
    run: tuple[RunConfig, Path], ranks: Callable[[int], RankPool], called: str, *words: str, world_size: int = 1
) -> Predictions:
    config, folder = run
    (checkpoint,) = (folder / "checkpoints").iterdir()
    output = folder.parent / called
    words = (f"--data.root={config.data.root}", *words)
    ranks(world_size).run(score_run, small_run(*words, text=TEXT), str(checkpoint), str(output))
    predictions = Predictions(str(output))
    assert predictions.members == MEMBERS and predictions.num_rows == ROWS
    return predictions


def test_an_exported_ensemble_gives_the_drivers_predictions(
    run: tuple[RunConfig, Path], sharded: Predictions, tmp_path: Path
) -> None:
    config, folder = run
    assert inspect_checkpoint.main(["export", str(folder), "--all", "--output", str(tmp_path / "exported")]) == 0
    ensemble = load_ensemble(str(tmp_path / "exported"))
    assert ensemble.member_names == MEMBERS
    numerics = {name: inputs.numeric for name, inputs in ensemble.facts.members.items()}
    assert numerics == dict.fromkeys(MEMBERS, "dense") | {"ids": "ids", "factor": "scaled"}
    source = open_scoring_source(config.data, parts=("b",))
    rows = source.read(range(source.num_rows))
    inputs = torch.from_numpy(rows.dense), bags_of(rows, features=list(source.features.table_rows))
    logits = ensemble.logits(*inputs)
    expected = sharded.logits()
    assert (expected.std(axis=0) > 1e-3).all()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ensemble.merged(*inputs), sharded.merged(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("dtype", "most"), [("fp16", 2e-3), ("int8", 3e-2)])
def test_quantised_tables_on_two_ranks(
    dtype: str, most: float, run: tuple[RunConfig, Path], sharded: Predictions, ranks: Callable[[int], RankPool]
) -> None:
    quantised = scored(run, ranks, dtype, f"--score.tables={dtype}", "--score.range_rows=100", world_size=2)
    apart = np.abs(quantised.logits() - sharded.logits()).max(axis=0)
    assert (apart > 0).all() and (apart < most).all(), apart


def test_bfloat16_members_and_stacked_copies(
    run: tuple[RunConfig, Path], sharded: Predictions, ranks: Callable[[int], RankPool]
) -> None:
    """Of a checkpoint that was trained in float32, one member after the other."""
    exact = sharded.logits()
    stacked = scored(run, ranks, "stacked", "--dense.batch_copies=true").logits()
    np.testing.assert_allclose(stacked, exact, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(stacked[:, :3], exact[:, :3]), "nothing was stacked"
    coarse = scored(run, ranks, "bf16", "--dense.precision=bf16")
    apart = np.abs(coarse.logits() - exact).max(axis=0)
    assert (apart[:5] > 0).all() and (apart < 0.03).all(), apart
    for member in (*MEMBERS, "merged"):
        fine, rough = sharded.manifest.metrics[member], coarse.manifest.metrics[member]
        assert abs(fine["log_loss_nats"] - rough["log_loss_nats"]) < 1e-3
        assert abs(fine["auc"] - rough["auc"]) < 2e-3
