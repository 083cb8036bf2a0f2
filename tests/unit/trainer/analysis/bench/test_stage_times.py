"""A preparation's stages with their times."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

from trainer.analysis.bench.stage_times import prepare_timed
from trainer.data.manifest import DataManifest
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.preparation_settings import PreparationSettings
from trainer.data.preparing.splits import Split

ROOT = Path(__file__).resolve().parents[5]
LINE = "1\t" + "\t".join(["5"] * 13 + ["ab"] * 26) + "\n"


def settings(folder: Path) -> PreparationSettings:
    log = folder / "day_0.tsv"
    log.write_text(LINE * 300)
    return PreparationSettings(
        inputs=(str(log),),
        output=str(folder / "out"),
        input_format=CriteoFormat(piece_bytes=len(LINE) * 100),
        split=Split.by_file([str(log)]),
    )


def test_each_stage_has_its_rows_and_seconds(tmp_path: Path) -> None:
    times = prepare_timed(settings(tmp_path))
    assert [*times][0] == "parse"
    assert {"dictionary", "write", "seal"} <= {*times}
    assert times["parse"]["num_rows"] == times["write"]["num_rows"] == 300
    assert all(time["seconds"] >= 0 for time in times.values())


def test_as_a_program_it_writes_them(tmp_path: Path) -> None:
    wanted = settings(tmp_path)
    (tmp_path / "settings").write_bytes(pickle.dumps(wanted))
    files = [str(tmp_path / "settings"), str(tmp_path / "times")]
    command = [sys.executable, str(ROOT / "trainer/analysis/bench/stage_times.py"), *files]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "times").read_text())["write"]["num_rows"] == 300
    assert DataManifest.read(wanted.output).parts[0].num_rows == 300

    (tmp_path / "settings").write_bytes(pickle.dumps(dataclasses.replace(wanted, inputs=(str(tmp_path / "none"),))))
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr
