"""The program that plans capacity, on the real planner: its answers, files and exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_NOTHING_FITS, EXIT_REFUSED
from configs.loader import dump_hardware
from tests.support.planned_cases import RUN, machine
from tools import plan_capacity
from trainer.planning import studying
from trainer.planning.page import words

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


def test_a_budget_that_is_spent_is_no_proof_that_nothing_fits(files, capsys):
    assert run(files, "--ranks", "2", "--purpose", "both", "--max-plans", "1") == EXIT_FAILURE
    assert "--max-plans" in capsys.readouterr().out
    assert run(files, "--ranks", "2", "--purpose", "both", "--max-plans", "2") == EXIT_DONE


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


def test_rows_as_toml_writes_them_and_a_rate_below_zero(files, capsys):
    for rows in ("2e6", "2_000_000", "2000000"):
        assert run(files, "--ranks", "4", "--rows", rows, "--json", str(files / "study.json")) == EXIT_DONE
        assert json.loads((files / "study.json").read_text())["data"]["train_rows"] == 2_000_000
    capsys.readouterr()
    assert run(files, "--growth", "-5%/month") == EXIT_REFUSED
    assert "--growth: '-5%/month' is not of the form" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(files, "--rows", "1.5")
    assert "'1.5' is not a whole number; write it as" in capsys.readouterr().err


def test_a_machine_that_was_only_looked_at(files, capsys):
    quick = machine(64, measured="quick, not for planning; 2026-01-01")
    (files / "box.toml").write_text(dump_hardware(quick))
    assert run(files, "--ranks", "4") == EXIT_DONE
    printed = capsys.readouterr()
    assert "WARNING: the rates of box are of a --quick look" in printed.err
    assert "Note: WARNING: the rates of box" in printed.out


def test_ctrl_c_before_the_first_plan(files, capsys, monkeypatch):
    def stopping(job, **sizes):
        raise KeyboardInterrupt

    monkeypatch.setattr(studying, "plan_point", stopping)
    assert run(files, hardware="tiny") == EXIT_INTERRUPTED
    told = capsys.readouterr().out
    assert "Training: stopped before an answer." in told and "nothing that was tried fits" not in told


def test_one_figure_for_the_fullest_rank(files, capsys):
    assert run(files, "--ranks", "1,4", "--json", str(files / "study.json")) == EXIT_DONE
    told = capsys.readouterr().out.replace("\u00a0", " ")
    point = json.loads((files / "study.json").read_text())["points"][0]
    held = point["held_bytes_per_rank"]
    takes = words.size(sum(sum(of) for kind, of in held.items() if kind != "reserve")).split("\u00a0")
    (line,) = [line for line in told.splitlines() if line.split()[:3] == ["box", "1", "*"]]
    assert line.split()[4:8] == [*takes, "57.6", "MiB"]
    told, takes = " ".join(told.split()), " ".join(takes)
    assert f"The fullest rank takes {takes} of 64.0 MiB with 6.4 MiB kept free" in told
    assert f"takes in all {takes} {takes} 1.00 reserve, kept free 6.4 MiB memory there is 64.0 MiB" in told
