"""The tool as a user starts it: compare, fit, apply, join."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import EXIT_DONE, EXIT_REFUSED
from tests.support.fit_rows import drawn_rows
from tests.support.made_predictions import made_predictions
from tools.merge_predictions import main
from trainer.merge_files import read_merge_file
from trainer.predictions.reading import Predictions
from trainer.predictions.verification import verify_predictions

ROWS = drawn_rows(1_200, noise=(0.5, 0.9, np.inf))
PARTS = {"day_0": 800, "day_1": 400}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    logits = {name: ROWS.logits[:, index] for index, name in enumerate(("good", "fair", "noise"))}
    return made_predictions(tmp_path / "made", ROWS.labels, logits, parts=PARTS, range_rows=300)


def test_compare_writes_what_it_shows(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["compare", folder, "--rules", "mean_logit", "weights", "--calibrations", "none", "--folds", "3"]
    assert main([*asked, "--output", str(tmp_path / "table.md")]) == EXIT_DONE
    shown = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == shown
    assert "| best member: good | none |" in shown and "| weights | none |" in shown and "3 folds" in shown
    assert main([*asked, "--output", str(tmp_path / "table.json")]) == EXIT_DONE
    names = [column["name"] for column in json.loads((tmp_path / "table.json").read_text())["columns"]]
    assert names == ["good", "mean_logit", "weights"]


def test_a_fit_on_one_part_is_applied_to_another(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge, output = str(tmp_path / "merge.toml"), str(tmp_path / "again")
    fit = ["fit", folder, "--rule", "weights", "--calibration", "platt", "--parts", "day_0", "--output", merge]
    assert main(fit) == EXIT_DONE
    kept = read_merge_file(merge)
    assert kept.fitted_on is not None
    assert (kept.fitted_on.parts, kept.fitted_on.num_rows) == (("day_0",), 800)
    assert kept.fitted_on.log_loss_nats < kept.fitted_on.log_loss_mean_logit_nats
    assert kept.fitted_on.checkpoints == ("runs/made/checkpoints/step_0000000007 at step 7",)
    assert "good" in capsys.readouterr().out

    assert main(["apply", folder, "--merge", merge, "--parts", "day_1", "--output", output]) == EXIT_DONE
    assert "was fitted on" not in capsys.readouterr().out
    expected = kept.rule.probabilities(torch.from_numpy(ROWS.logits[800:])).float().numpy()
    assert np.array_equal(Predictions(output).merged(), expected)
    assert verify_predictions(output).problems == ()


def test_rows_that_the_rule_has_seen_are_told(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merge = str(tmp_path / "merge.toml")
    assert main(["fit", folder, "--rule", "stacking", "--parts", "day_0", "--output", merge]) == EXIT_DONE
    assert main(["apply", folder, "--merge", merge, "--output", str(tmp_path / "again")]) == EXIT_DONE
    assert "was fitted on day_0; merged has seen these rows" in capsys.readouterr().out


def test_fewer_rows_are_told(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merge = str(tmp_path / "merge.toml")
    assert main(["fit", folder, "--rule", "weights", "--max-rows", "500", "--output", merge]) == EXIT_DONE
    assert "500 evenly spaced rows of 1,200 (--max-rows)" in capsys.readouterr().out
    fitted_on = read_merge_file(merge).fitted_on
    assert fitted_on is not None and (fitted_on.num_rows, fitted_on.num_rows_used) == (1_200, 500)


def test_join_takes_labels_before_folders(folder: str, tmp_path: Path) -> None:
    output = str(tmp_path / "both")
    assert main(["join", f"old={folder}", folder, "--rule", "median", "--output", output]) == EXIT_DONE
    assert Predictions(output).members == ("old_good", "old_fair", "old_noise", "good", "fair", "noise")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "nowhere"], "error: 'nowhere' has no manifest.json"),
        (["compare", "FOLDER", "--parts", "day_9"], "has no part 'day_9'; its parts are day_0, day_1"),
        (["compare", "FOLDER", "--folds", "1"], "1 folds: take from 2 to 127"),
        (["compare", "FOLDER", "--max-rows", "1"], "--max-rows: 1 is below 2"),
        (
            ["fit", "FOLDER", "--rule", "greedy", "--greedy-rounds", "0", "--output", "x"],
            "--greedy-rounds: 0 is below 1",
        ),
        (
            ["fit", "FOLDER", "--rule", "stacking", "--stacking-l2", "nan", "--output", "x"],
            "--stacking-l2: nan must be",
        ),
        (["apply", "FOLDER", "--merge", "nowhere.toml", "--output", "x"], "nowhere.toml: no such file; fit one"),
        (["join", "FOLDER", "FOLDER", "--output", "x"], "member 'good' is in two of the folders; give them names"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], message: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([folder if one == "FOLDER" else one for one in arguments]) == EXIT_REFUSED
    assert message in capsys.readouterr().err


def test_unlabelled_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_predictions(tmp_path / "made", None, {"a": ROWS.logits[:, 0]})
    for arguments in (["compare", folder], ["fit", folder, "--rule", "weights", "--output", str(tmp_path / "m.toml")]):
        assert main(arguments) == EXIT_REFUSED
        assert "has rows without a label" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "no" / "merge.toml")
    for command in (["fit", folder, "--rule", "weights"], ["compare", folder]):
        assert main([*command, "--output", missing]) == EXIT_REFUSED
        assert "--output: the folder" in capsys.readouterr().err
        assert main([*command, "--output", str(tmp_path)]) == EXIT_REFUSED
        assert "is a folder; name a file" in capsys.readouterr().err


def test_changed_files_are_refused_by_name(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(Path(folder).glob("day_1-*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    merge = str(tmp_path / "m.toml")
    for command in (["fit", folder, "--rule", "weights", "--output", merge], ["compare", folder]):
        assert main(command) == EXIT_REFUSED
        assert f"{path.name}: its bytes are not those" in capsys.readouterr().err


def test_rows_that_a_checkpoint_was_trained_on_are_told(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('[data]\nroot = "data/made"\ntrain = ["day_0"]\n')
    manifest = Path(folder) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("runs/made/checkpoints/step_0000000007", str(tmp_path)))
    compare = ["compare", folder, "--rules", "--calibrations", "none"]
    note = "was trained on day_0: these rows were trained on; figures on them flatter."
    for command in (["fit", folder, "--rule", "median", "--output", str(tmp_path / "m.toml")], compare):
        assert main([*command, "--parts", "day_1"]) == EXIT_DONE
        assert "trained on" not in capsys.readouterr().out
        assert main([*command, "--parts", "day_0"]) == EXIT_DONE
        assert f"note: {tmp_path} {note}" in capsys.readouterr().out
