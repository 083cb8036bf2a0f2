"""The program that plans capacity, on the real planner: its answers, files and exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from configs.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_NOTHING_FITS, EXIT_REFUSED
from configs.loader import dump_hardware
from tests.support.planned_cases import RUN, machine
from tools import plan_capacity
from trainer.planning import studying

OUTLINE = "num_rows = 1000000\ndense = 1\n[features.C1]\nrows = 40000\n[features.C2]\nrows = 20000\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text(RUN)
    (tmp_path / "outline.toml").write_text(OUTLINE)
    for name, mib, price in (("box", 64, 8.0), ("tiny", 5, 0.0)):
        (tmp_path / f"{name}.toml").write_text(dump_hardware(machine(mib, name=name, price=price)))
    return tmp_path


def run(files: Path, *words: str, hardware: str = "box") -> int:
    given = ["--config", str(files / "run.toml"), "--data", str(files / "outline.toml")]
    return plan_capacity.main([*given, "--hardware", str(files / f"{hardware}.toml"), *words])


def test_a_plan_of_named_sizes(files, capsys):
    outputs = {kind: files / f"study.{kind}" for kind in ("json", "csv", "html")}
    words = [word for kind, path in outputs.items() for word in (f"--{kind}", str(path))]
    assert run(files, "--ranks", "2,4", "--purpose", "both", "--plan", str(files / "plan.json"), *words) == EXIT_DONE
    study = json.loads(outputs["json"].read_text())
    assert [(point["purpose"], point["world_size"], point["fits"]) for point in study["points"]] == [
        ("train", 2, True),
        ("train", 4, True),
        ("score", 2, True),
        ("score", 4, True),
    ]
    assert study["command"].startswith("python tools/plan_capacity.py --config")
    first = study["points"][0]
    assert first["table_bytes"] == 3 * 60_000 * 128
    tables = sum(first["held_bytes_per_rank"]["table_weights"]) + sum(first["held_bytes_per_rank"]["table_optimizer"])
    assert tables >= first["table_bytes"]
    assert len(list(csv.DictReader(outputs["csv"].open()))) == 4
    assert "</html>" in outputs["html"].read_text()
    plan = json.loads((files / "plan.json").read_text())
    assert set(plan["tables"]) == {
        f"{group}/{name}" for group in ("shared", "solo_1", "solo_2") for name in ("C1", "C2")
    }
    printed = capsys.readouterr()
    assert "Training" in printed.out and "Scoring" in printed.out
    assert "is of 2 ranks of box" in printed.err


def test_nothing_fits(files, capsys):
    assert run(files, "--ranks", "1", "--plan", str(files / "plan.json"), hardware="tiny") == EXIT_NOTHING_FITS
    printed = capsys.readouterr()
    assert "Training fits nowhere" in printed.out and "tables.own.optimizer" in printed.out
    assert "is not written, for there is no plan" in printed.err and not (files / "plan.json").exists()


def test_what_is_wrong_is_one_sentence(files, capsys):
    assert run(files, "--ranks", "0") == EXIT_REFUSED
    assert capsys.readouterr().err == "error: --ranks: 0 is no number of ranks; give 1 or more\n"


def test_ctrl_c_prints_and_writes_what_is_there(files, capsys, monkeypatch):
    real, calls = studying.plan_point, []

    def stopping(job, **sizes):
        calls.append(sizes["world_size"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(job, **sizes)

    monkeypatch.setattr(studying, "plan_point", stopping)
    assert run(files, "--ranks", "2,4", "--json", str(files / "study.json")) == EXIT_INTERRUPTED
    assert [point["world_size"] for point in json.loads((files / "study.json").read_text())["points"]] == [2]
    assert "stopped by Ctrl-C" in capsys.readouterr().out


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        plan_capacity.main(["--help"])
    told = capsys.readouterr().out
    assert told.count("python tools/plan_capacity.py") == 5 and "5%/month" in told
