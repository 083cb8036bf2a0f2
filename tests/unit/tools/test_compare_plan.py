"""tools/compare_plan.py: a run's figures beside those predicted, and what it is refused for."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import EXIT_DONE, EXIT_REFUSED
from configs.loader import dump_hardware
from configs.schema import Run
from tests.support.commands import ROOT
from tests.support.hardware_files import small_machine
from tests.support.runs import small_run
from tests.support.training import train_run
from tests.unit.trainer.ranks import one_rank
from tools import compare_plan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a short run on one rank, with what trainer/main.py puts there."""
    folder = tmp_path_factory.mktemp("compared") / "run"
    config = small_run("--train.until={steps = 4}", "--train.log_every.steps=2")
    with one_rank(Run(device="cpu")) as runtime:
        train_run(runtime, config, str(folder))
    for name in ("run.toml", "plan.json"):
        shutil.copy(folder / "checkpoints" / "step_0000000004" / name, folder / name)
    yield folder


@pytest.fixture
def hardware(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(dump_hardware(small_machine()))
    return str(path)


def test_a_run_beside_what_is_predicted_for_it(
    run: Path, hardware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "compared.json"
    assert compare_plan.main([str(run), "--hardware", hardware, "--json", str(output)]) == EXIT_DONE
    shown = capsys.readouterr().out
    assert "1 rank(s), 1 window(s) of steps after the first" in shown and "small, not calibrated" in shown
    assert sum(line.endswith("exact") for line in shown.splitlines()) == 4
    figures = {one["name"]: one for one in json.loads(output.read_text())["figures"]}
    assert figures["weights of tables"]["predicted"] == figures["weights of tables"]["measured"] > 0
    assert figures["step"]["ratio"] == figures["step"]["predicted"] / figures["step"]["measured"] > 0
    assert figures["rows"]["unit"] == "rows/s"


def test_rows_that_are_gone(run: Path, hardware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    text = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(text.replace('root = ""', 'root = "gone"').replace("train = []", 'train = ["a"]'))
    assert compare_plan.main([str(folder), "--hardware", hardware]) == EXIT_DONE
    assert "what the run has noted of its rows; their skew is not known" in capsys.readouterr().out
    outline = tmp_path / "outline.toml"
    outline.write_text("num_rows = 100\ndense = 13\n[features.C1]\nrows = 9\n")
    assert compare_plan.main([str(folder), "--hardware", hardware, "--data", str(outline)]) == EXIT_REFUSED
    assert "has tables of other sizes than the run" in capsys.readouterr().err


def test_what_is_refused(run: Path, hardware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_plan.main([str(tmp_path), "--hardware", hardware]) == EXIT_REFUSED
    assert "no usage.json; name the folder of a training run" in capsys.readouterr().err
    assert compare_plan.main([str(run), "--hardware", str(tmp_path / "none.toml")]) == EXIT_REFUSED
    assert "none.toml" in capsys.readouterr().err
    assert compare_plan.main([str(run), "--hardware", str(ROOT / "configs/hardware/h100_80gb_8.toml")]) == EXIT_REFUSED
    assert "is cuda, but the run was on cpu; give the file of the machine that it ran on" in capsys.readouterr().err
    planless = tmp_path / "planless"
    shutil.copytree(run, planless, ignore=shutil.ignore_patterns("checkpoints", "plan.json"))
    assert compare_plan.main([str(planless), "--hardware", hardware]) == EXIT_REFUSED
    assert "plan.json" in capsys.readouterr().err


def test_a_shipped_machine_by_its_bare_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_plan.main([str(run), "--hardware", "h100_80gb_8"]) == EXIT_REFUSED
    assert "is cuda, but the run was on cpu" in capsys.readouterr().err
    assert compare_plan.main([str(run), "--hardware", "h1"]) == EXIT_REFUSED
    assert "--hardware: no 'h1' in configs/hardware; give a path, or one of " in capsys.readouterr().err


def test_a_machine_that_was_only_looked_at(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "quick.toml"
    path.write_text(dump_hardware(dataclasses.replace(small_machine(), measured="quick, not for planning; 2026")))
    assert compare_plan.main([str(run), "--hardware", str(path)]) == EXIT_DONE
    assert "WARNING: the rates of small are of a --quick look" in capsys.readouterr().err
