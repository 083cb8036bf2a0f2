"""Averaged weights of trained runs: batch norm's statistics against a direct computation, seeds, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs.errors import ChorusError
from configs.loader import read_run
from configs.schema import RunConfig
from modules import members
from modules.layers.batch_norm import BatchNorm
from modules.tables import build_tables
from tools import inspect_checkpoint
from trainer.assembly import assemble_training
from trainer.averaged_weights import averaged
from trainer.built_task import build_task
from trainer.checkpoints.manifest import read_manifest
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.checkpoints.verification import verify_checkpoint
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.opening import open_sources
from trainer.data.reading.order import RowOrder
from trainer.loop import train
from trainer.reporting import Reporter
from trainer.runtime import Runtime

BATCH, ROWS = 16, 65  # the last batch has one row
RUN = f"""
[data]
shuffle_window = 20
synthetic = {{train_rows = {ROWS}, valid_rows = 24, max_table_rows = 40}}
[train]
batch_size = {BATCH}
until = {{steps = 4}}
[checkpoint]
every.steps = 2
[members.deep]
feature_dropout = 0.1
arch = {{kind = "mlp", hidden = [6, 5], dropout = 0.3, batch_norm = true}}
[members.plain]
tables = "own"
arch = {{kind = "mlp", hidden = [4]}}
"""


def config(*overrides: str) -> RunConfig:
    return read_run(
        RUN, source="run.toml", overrides=overrides, resolve_arch=members.config_class, arch_kinds=members.kinds()
    )


def trained(folder: Path, runtime: Runtime, *overrides: str) -> list[str]:
    """The checkpoints of a run, the oldest first."""
    folder.mkdir()
    chosen = config(*overrides)
    assembled = assemble_training(chosen, folder=str(folder), runtime=runtime)
    reporter = Reporter(folder=str(folder), resumed_step=0, runtime=runtime)
    train(assembled.training, config=chosen, reporter=reporter, runtime=runtime)
    reporter.close()
    return sorted(map(str, (folder / "checkpoints").iterdir()))


@pytest.fixture
def run(tmp_path: Path, runtime: Runtime) -> list[str]:
    return trained(tmp_path / "run", runtime)


def weights(folder: str) -> dict[str, Tensor]:
    stored = StoredCheckpoint.open(folder)
    return {key.removeprefix("model/"): torch.cat(list(stored.blocks(key))) for key in stored.weights}


def direct_statistics(state: Mapping[str, Tensor], *, num_batches: int) -> dict[str, Tensor]:
    """The mean over rows, and the batches' variances weighted by their rows, of what each batch norm is given."""
    chosen = config()
    source = open_sources(chosen.data).train
    built = build_task(chosen, features=source.features)
    built.task.ensemble.tables = build_tables(built.specs, device="cpu")
    built.task.load_state_dict(dict(state))
    seen: dict[str, list[Tensor]] = {}

    def watch(name: str, layer: nn.Module) -> None:
        layer.register_forward_pre_hook(lambda _, inputs: seen.setdefault(name, []).append(inputs[0].double().clone()))

    for name, layer in built.task.named_modules():
        if isinstance(layer, BatchNorm):
            watch(name, layer)
    order = RowOrder(num_rows=ROWS, seed=chosen.data.seed, window=20)
    batches = BatchReader(source=source, batch_size=BATCH, rank=0, world_size=1).batches(order)
    with torch.no_grad():
        for step, batch in zip(range(num_batches), batches, strict=False):
            built.task.begin_step(step=step, rank=0)
            built.task.ensemble(batch.dense_BN, batch.sparse)
    found = {}
    for name, values in seen.items():
        found[f"{name}.running_mean"] = torch.cat(values).mean(dim=0)
        found[f"{name}.running_var"] = torch.stack([batch.var(dim=0) for batch in values]).mean(dim=0)
    return found


def test_statistics_are_those_of_the_rows(run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one checkpoint twice, whose mean it is: the network is known, and only its statistics are new."""
    pair = (run[-1], str(shutil.copytree(run[-1], tmp_path / "twin")))
    before = weights(run[-1])
    for rows, num_batches in ((2, 1), (40, 3), (10_000, 4)):
        output = str(tmp_path / f"mean_{rows}")
        assert inspect_checkpoint.main(["average", *pair, "--batch-norm-rows", str(rows), "--output", output]) == 0
        after, expected = weights(output), direct_statistics(before, num_batches=num_batches)
        assert len(expected) == 4 and set(after) == set(before)
        for key, value in after.items():
            if key in expected:
                torch.testing.assert_close(value.double(), expected[key], rtol=1e-4, atol=1e-5)
                assert not torch.allclose(value, before[key], rtol=1e-2), f"{key} did not change: nothing was tested"
            else:
                assert torch.equal(value, before[key]), key
        assert read_manifest(output).averaged["batch_norm_rows"] == rows
        assert verify_checkpoint(output, advance=lambda _: None).is_whole
    assert "running statistics are means" not in capsys.readouterr().out
    assert inspect_checkpoint.main(["show", output, "--quick"]) == 0
    assert "no optimizer state; batch norm by 10,000 rows" in capsys.readouterr().out


def test_without_rows_statistics_are_averaged(
    run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect_checkpoint.main(["average", *run, "--output", str(tmp_path / "mean")]) == 0
    assert "running statistics are means, too" in capsys.readouterr().out
    first, second, mean = (weights(folder) for folder in (*run, str(tmp_path / "mean")))
    key = next(key for key in mean if key.endswith("running_var"))
    torch.testing.assert_close(mean[key], (first[key] + second[key]) / 2)
    assert "batch_norm_rows" not in read_manifest(str(tmp_path / "mean")).averaged


def test_runs_of_other_seeds_are_one_model(run: list[str], tmp_path: Path, runtime: Runtime) -> None:
    other = trained(tmp_path / "other", runtime, "--run.seed=9", "--data.seed=8")
    output = str(tmp_path / "mean")
    made = averaged([run[-1], other[-1]], output=output, batch_norm_rows=32)
    assert made.shares == (0.5, 0.5)
    one, two, mean = weights(run[-1]), weights(other[-1]), weights(output)
    for key, value in mean.items():
        if "running" not in key:
            assert not torch.equal(one[key], two[key]), key
            torch.testing.assert_close(value, (one[key] + two[key]) / 2)
    wider = trained(tmp_path / "wider", runtime, "--members.deep.arch.hidden=[7, 5]", "--run.seed=9")
    with pytest.raises(ChorusError, match="are of different models, which have no mean:\n  members.deep"):
        averaged([run[-1], wider[-1]], output=str(tmp_path / "none"))


def test_what_is_refused_before_any_work(run: list[str], tmp_path: Path, runtime: Runtime) -> None:
    plain = trained(tmp_path / "plain", runtime, "--members.deep.arch.batch_norm=false", "--train.until.steps=3")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    refused: list[tuple[list[str], dict[str, Any], str]] = [
        (run, {"batch_norm_rows": -1}, "--batch-norm-rows: -1 is below 0"),
        (run, {"batch_norm_rows": 1}, "--batch-norm-rows: 1 rows have no variance"),
        (run, {"data_root": "x"}, "--data-root: no rows are read"),
        (run, {"batch_norm_rows": 32, "data_root": str(tmp_path / "nowhere")}, "data.train: empty"),
        (plain, {"batch_norm_rows": 32}, "--batch-norm-rows: no member has batch norm"),
        (run, {"batch_norm_rows": 32, "output": str(tmp_path / "full")}, "is there already"),
    ]
    for folders, words, told in refused:
        with pytest.raises(ChorusError, match=told):
            averaged(folders, **{"output": str(tmp_path / "new")} | words)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]
