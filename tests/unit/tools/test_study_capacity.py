"""tools/study_capacity.py: what it is refused for, and a study of two small ensembles from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import EXIT_DONE, EXIT_REFUSED
from configs.loader import dump_hardware, read_hardware
from tests.support.hardware_files import small_machine
from tools import study_capacity
from trainer.analysis.plan_comparison import calibration_fit, study_runs
from trainer.analysis.plan_comparison.study_cases import Case


def case(name: str, use: Any, batch_size: int, ranks: tuple[int, ...]) -> Case:
    return Case(
        name=name,
        use=use,
        kinds=("mlp",),
        tables="shared",
        dim=8,
        batch_size=batch_size,
        optimizer="adagrad",
        hidden=(32,),
        ranks=ranks,
    )


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(tmp_path / "study")]
    assert study_capacity.main([*folder, "--only", "report"]) == EXIT_REFUSED
    assert "--hardware: none; name the file of this machine, or take --only measure" in capsys.readouterr().err
    hardware = "cpu_spr_2s"  # of configs/hardware
    for section in ("fit", "report"):
        assert study_capacity.main([*folder, "--hardware", hardware, "--only", section]) == EXIT_REFUSED
        assert "holds no run yet; measure first" in capsys.readouterr().err
    assert study_capacity.main([*folder, "--hardware", str(tmp_path / "none.toml")]) == EXIT_REFUSED
    assert "none.toml" in capsys.readouterr().err  # before anything is measured
    (tmp_path / "study" / "measured.json").write_text("[]")
    assert study_capacity.main([*folder, "--only", "measure"]) == EXIT_REFUSED
    assert "is not what this study writes; name another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_of_two_ensembles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        case("c", "calibration", 8_192, (1, 2)),
        case("h", "held_out", 4_096, (1, 2)),
        case("b", "bytes", 512, (4,)),
    ]
    monkeypatch.setattr(study_capacity, "study_cases", lambda: cases)
    monkeypatch.setattr(calibration_fit, "_LEAST_RUNS", 2)
    monkeypatch.setattr(study_runs, "_ROWS_PER_DAY", 16_384)
    monkeypatch.setattr(study_runs, "_WINDOW_SECONDS", 0.1)
    monkeypatch.setattr(study_runs, "_LEAST_WINDOW_SECONDS", 0.0)
    hardware = tmp_path / "small.toml"
    hardware.write_text(dump_hardware(small_machine()))
    words = ["--folder", str(tmp_path / "study"), "--hardware", str(hardware)]
    assert study_capacity.main(words) == EXIT_DONE
    told = capsys.readouterr()
    assert "| bytes of tables and their optimizer state, 1, 2, 4 rank(s) | 5 | exact in 5 |" in told.out
    assert "| step time, 2 rank(s) | 1 |" in told.out
    assert "run 5/5" in told.err
    assert read_hardware(str(hardware)).calibration.runs == 2
    measured = tmp_path / "study" / "measured.json"
    runs = json.loads(measured.read_text())["runs"]
    assert set(runs) == {"c_x1", "c_x2", "h_x1", "h_x2", "b_x4"}
    assert not list((tmp_path / "study" / "runs").glob("*/checkpoints"))
    before = measured.read_bytes()
    assert study_capacity.main(words) == EXIT_DONE  # nothing runs again
    assert measured.read_bytes() == before and "run 1/" not in capsys.readouterr().err
