"""The comparison tool on a small prepared folder: its baselines, its checks of the rows and its table."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import EXIT_DONE, EXIT_REFUSED
from tests.support.made_predictions import made_predictions
from tools import compare_baselines
from tools.compare_baselines import (
    BOOSTING,
    LOGISTIC,
    cut_in_time,
    fit_boosting,
    fit_logistic,
    main,
    numeric_buckets,
    read_rows,
)
from trainer.analysis.intervals import auc_estimate
from trainer.data.criteo import NUM_DENSE, NUM_SPARSE, feature_specs
from trainer.data.manifest import DataManifest, Part, PartFile

NUM_IDS = 12
PARTS = {"train": 3_000, "valid": 1_000}


def write_part(root: Path, name: str, *, num_rows: int, draw: np.random.Generator) -> Part:
    """Rows whose labels follow C1's ids and I1; the other columns are noise."""
    ids = draw.integers(0, NUM_IDS, (num_rows, NUM_SPARSE)).astype(np.int32)
    dense = np.log1p(draw.poisson(3.0, (num_rows, NUM_DENSE))).astype(np.float32)
    logits = (ids[:, 0] - 6) / 2 + 1.5 * (dense[:, 0] - 1.3) - 1
    labels = (draw.random(num_rows) < 1 / (1 + np.exp(-logits))).astype(np.int32)
    files = {}
    for role, array in (("dense", dense), ("sparse", ids), ("labels", labels[:, None])):
        path = root / f"{name}_{role}.npy"
        np.save(path, array)
        content = path.read_bytes()
        files[role] = PartFile(path=path.name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    return Part(name=name, num_rows=num_rows, label_sum=int(labels.sum()), files=files)


def prepared(root: Path, *, dictionary: str = "d") -> str:
    root.mkdir()
    draw = np.random.default_rng(4)
    parts = tuple(write_part(root, name, num_rows=count, draw=draw) for name, count in PARTS.items())
    DataManifest(
        features=feature_specs([NUM_IDS] * NUM_SPARSE), parts=parts, dictionary_sha256=dictionary, provenance={}
    ).write(str(root))
    return str(root)


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
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search over settings is the same with fewer of them."""
    monkeypatch.setattr(compare_baselines, "_NUM_LEAVES", (4, 8))
    monkeypatch.setattr(compare_baselines, "_MIN_LEAF_ROWS", (50,))
    monkeypatch.setattr(compare_baselines, "_MAX_TREES", 80)
    monkeypatch.setattr(compare_baselines, "_STRENGTHS", (0.05, 0.5))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return prepared(tmp_path / "data")


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


@pytest.mark.parametrize("fit", [fit_logistic, fit_boosting])
def test_a_baseline_finds_what_was_planted_and_sees_no_label_it_is_judged_on(data, fit):
    train, valid = read_rows(data, ["train"]), read_rows(data, ["valid"])
    truth = (valid.ids[:, 0] - 6) / 2 + 1.5 * (valid.dense[:, 0] - 1.3)
    fitted = fit(train, valid).probabilities
    best = auc_estimate(valid.labels, truth).value
    assert best - 0.05 < auc_estimate(valid.labels, fitted).value < best + 0.01
    valid.labels[:] = 1 - valid.labels
    np.testing.assert_array_equal(fit(train, valid).probabilities, fitted)


def test_buckets_are_the_numbers_floored_log_squared():
    numbers = np.array([[0, 1, 2, 3, -1, -2, 10, 65_535]])
    dense = (np.sign(numbers) * np.log1p(np.abs(numbers))).astype(np.float32)
    assert numeric_buckets(dense).tolist() == [[0, 1, 2, 1, -1, -2, 5, 122]]


def test_the_settings_are_judged_on_the_latest_ninth_of_the_training_rows(data):
    train = read_rows(data, ["train"])
    early, late = cut_in_time(train)
    assert (early.row.max(), late.row.min(), len(late)) == (2_665, 2_666, 334)


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
