"""The comparison tool on a small prepared folder: its checks of the rows and its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import EXIT_DONE, EXIT_REFUSED
from tests.support.made_predictions import made_predictions
from tests.support.planted_rows import few_settings, planted
from tools.compare_baselines import main
from trainer.analysis.baselines import BOOSTING, LOGISTIC, read_rows


def predicted(folder: Path, *, labels, dictionary: str = "d", part: str = "valid") -> str:
    """Two members that know something, in two files, and their merge."""
    draw = np.random.default_rng(8)
    logits = {
        name: (2 * labels - 1.5 + noise * draw.normal(size=len(labels))).astype(np.float32)
        for name, noise in (("good", 1.5), ("bad", 6.0))
    }
    return made_predictions(
        folder, labels, logits, parts={part: len(labels)}, range_rows=-(-len(labels) // 2), dictionary=dictionary
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few_settings(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return planted(tmp_path / "data")


def test_the_table_has_each_member_the_merge_and_both_baselines(data, tmp_path, capsys):
    predictions = predicted(tmp_path / "predictions", labels=read_rows(data, ["valid"]).labels)
    output, chart = tmp_path / "table.md", tmp_path / "chart.png"

    code = main(["--data", data, "--predictions", predictions, "--output", str(output), "--chart", str(chart)])

    assert code == EXIT_DONE
    lines = [line for line in output.read_text().splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["good", "bad", "**merged**", LOGISTIC, BOOSTING]
    assert output.read_text() in capsys.readouterr().out
    assert chart.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    written = json.loads((Path(predictions) / "manifest.json").read_text())["metrics"]
    for line, name in zip(lines[2:5], ("good", "bad", "merged"), strict=True):
        assert f"{written[name]['auc']:.5f}" in line
        assert f"{written[name]['log_loss_nats']:.5f}" in line


def test_predictions_of_other_rows_are_refused(data, tmp_path, capsys):
    labels = read_rows(data, ["valid"]).labels
    other = labels.copy()
    other[0] = 1 - other[0]
    cases = {
        "other_labels": {"labels": other},
        "too_few": {"labels": labels[:-1]},
        "other_dictionary": {"labels": labels, "dictionary": "e"},
    }
    for name, settings in cases.items():
        folder = predicted(tmp_path / name, **settings)
        assert main(["--data", data, "--predictions", folder]) == EXIT_REFUSED
        assert "holds other rows than 'valid'" in capsys.readouterr().err


def test_a_folder_without_the_part_or_without_a_manifest_is_refused(data, tmp_path, capsys):
    elsewhere = predicted(tmp_path / "p", labels=read_rows(data, ["valid"]).labels, part="day_3")
    assert main(["--data", data, "--predictions", elsewhere]) == EXIT_REFUSED
    assert "has no rows of 'valid'" in capsys.readouterr().err
    assert main(["--data", data, "--predictions", data]) == EXIT_REFUSED
    assert "is not a manifest of predictions" in capsys.readouterr().err
    assert main(["--data", data, "--predictions", str(tmp_path)]) == EXIT_REFUSED
    assert "has no manifest.json" in capsys.readouterr().err
