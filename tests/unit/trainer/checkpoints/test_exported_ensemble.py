"""An exported folder gives its members' logits and the merged probability; what is damaged or missing is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import CheckpointError, ConfigError, DataError
from modules.merge import MergeRule
from tests.support.stored_checkpoints import flip, quiet, state, store
from trainer.checkpoints import ensemble_export
from trainer.checkpoints.ensemble_export import EnsembleExport, EnsembleFacts
from trainer.checkpoints.export import load_member
from trainer.checkpoints.exported_ensemble import bags_of, load_ensemble
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.data.reading.batch import Rows
from trainer.merge_files import MergeFile

RULE = MergeRule(rule="weights", members=("solo", "deep"), weights=(0.75, 0.25))
DENSE = torch.tensor([[0.5], [-1.0]])
BAGS: dict[str, Any] = {"C1": torch.tensor([9, 0]), "C2": (torch.tensor([1, 5, 5]), torch.tensor([0, 3, 3]))}


def exported(tmp_path: Path, rule: MergeRule = RULE) -> Path:
    source = StoredCheckpoint.open(str(store(tmp_path / "checkpoint", state(), pieces=(2, 2))))
    EnsembleExport.of(source, merge=MergeFile(rule=rule, fitted_on=None)).write(
        str(tmp_path / "exported"), advance=quiet
    )
    return tmp_path / "exported"


def test_logits_and_merged(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    names = ["deep.safetensors", "ensemble.json", "merge.toml", "solo.safetensors"]
    assert sorted(entry.name for entry in folder.iterdir()) == names
    ensemble = load_ensemble(str(folder))
    assert ensemble.member_names == ("deep", "solo")
    logits = ensemble.logits(DENSE, BAGS)
    assert logits.shape == (2, 2) and not logits.requires_grad
    with torch.no_grad():
        deep, solo = (load_member(str(folder / f"{name}.safetensors")).model(DENSE, BAGS) for name in ("deep", "solo"))
    torch.testing.assert_close(logits, torch.stack([deep, solo], dim=1), rtol=0, atol=0)
    # The rule names the members in another order than the columns.
    expected = torch.sigmoid(0.75 * solo.double() + 0.25 * deep.double())
    torch.testing.assert_close(ensemble.merged(DENSE, BAGS), expected, rtol=1e-12, atol=0)


def test_the_manifest(tmp_path: Path) -> None:
    facts = EnsembleFacts.read(str(exported(tmp_path)))
    assert (facts.step, facts.dictionary, facts.dense_features) == (7, "d1", ("I1",))
    assert dict(facts.table_rows) == {"C1": 10, "C2": 6}
    assert facts.members["solo"].id_features == ("C1", "C2") and facts.members["solo"].dense_features == ("I1",)
    assert set(facts.files) == {"deep.safetensors", "solo.safetensors", "merge.toml"}


NAN, INF = float("nan"), float("inf")
LONG = torch.tensor([10**12, 0])


@pytest.mark.parametrize(
    ("dense", "bags", "sentence"),
    [
        (torch.zeros(2, 2), {}, "2 numeric columns for an ensemble that was trained on 1: I1$"),
        (torch.zeros(2, 1).double(), {}, r"dense features: torch.float64 of shape \[2, 1\]; give a float32 tensor"),
        (torch.zeros(2), {}, r"dense features: torch.float32 of shape \[2\]; give"),
        ([[0.5], [1.0]], {}, "dense features: a list; give"),
        (torch.tensor([[0.0], [NAN]]), {}, "dense feature 'I1' is nan in row 1; give a finite number"),
        (torch.tensor([[-INF], [0.0]]), {}, "dense feature 'I1' is -inf in row 0; give"),
        (DENSE, {"C2": None}, "id feature 'C2' is missing, which member deep reads"),
        (
            DENSE,
            {"C1": torch.tensor([0, 10])},
            "id feature 'C1': id 10 in row 1 is not in its table; give ids from 0 to 9",
        ),
        (DENSE, {"C1": torch.tensor([-1, 0])}, "id feature 'C1': id -1 in row 0 is not"),
        (DENSE, {"C1": LONG}, "id feature 'C1': id 1000000000000 in row 0 is not"),
        (DENSE, {"C1": torch.tensor([0, 1, 2])}, "id feature 'C1': 3 ids for 2 rows; give one of each row"),
        (
            DENSE,
            {"C1": torch.tensor([0.0, 1.0])},
            r"'C1': its ids are torch.float32 of shape \[2\]; give a tensor of int",
        ),
        (DENSE, {"C1": torch.tensor([True, False])}, "'C1': its ids are torch.bool"),
        (DENSE, {"C1": torch.tensor([[1], [0]])}, r"'C1': its ids are torch.int64 of shape \[2, 1\]"),
        (DENSE, {"C1": np.array([1, 0])}, "'C1': its ids are a ndarray"),
        (DENSE, {"C2": (torch.tensor([1, 6, 7]), torch.tensor([0, 0, 3]))}, "'C2': id 6 in row 1 is not"),
        (DENSE, {"C2": (torch.tensor([1]), torch.tensor([0.0, 0.5, 1.0]))}, "'C2': its offsets are torch.float32"),
        (DENSE, {"C2": (torch.tensor([1]), torch.tensor([0, 1]))}, "'C2': 2 offsets for 2 rows; give 3"),
        (
            DENSE,
            {"C2": (torch.tensor([1, 2]), torch.tensor([0, 1, 1]))},
            "'C2': its offsets begin with 0 and end with 1;",
        ),
        (DENSE, {"C2": (torch.tensor([1]), torch.tensor([0, 2, 1]))}, "'C2': its offsets fall in row 1"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, dense: Any, bags: dict[str, Any], sentence: str) -> None:
    ensemble = load_ensemble(str(exported(tmp_path)))
    given = {name: bag for name, bag in (BAGS | bags).items() if bag is not None}
    with pytest.raises(DataError, match=sentence):
        ensemble.logits(dense, given)


def test_inputs_of_no_rows_and_of_other_integers(tmp_path: Path) -> None:
    ensemble = load_ensemble(str(exported(tmp_path)))
    none = torch.zeros(0, dtype=torch.int64)
    assert ensemble.logits(DENSE[:0], {"C1": none, "C2": (none, torch.zeros(1, dtype=torch.int32))}).shape == (0, 2)
    narrow = {"C1": BAGS["C1"].to(torch.uint8), "C2": tuple(part.int() for part in BAGS["C2"]), "C9": "not read"}
    torch.testing.assert_close(ensemble.logits(DENSE, narrow), ensemble.logits(DENSE, BAGS), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["deep.safetensors", "merge.toml"])
def test_a_changed_or_missing_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = exported(tmp_path)
    flip(folder / name)
    with pytest.raises(CheckpointError, match=f"{name} is missing or not as it was written"):
        load_ensemble(str(folder))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing or not as it was written"):
        load_ensemble(str(folder))


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no ensemble\.json in it, so it is no whole export"):
        load_ensemble(str(tmp_path))
    folder = exported(tmp_path)
    body = json.loads((folder / "ensemble.json").read_text())
    (folder / "ensemble.json").write_text(json.dumps(body | {"format_version": 9}))
    with pytest.raises(CheckpointError, match="another format, or format version"):
        load_ensemble(str(folder))
    (folder / "ensemble.json").write_text(json.dumps(body | {"members": {"deep": {}}}))
    with pytest.raises(CheckpointError, match="not the manifest of an exported ensemble"):
        load_ensemble(str(folder))


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = StoredCheckpoint.open(str(store(tmp_path / "checkpoint", state())))
    other = MergeRule.fixed("median", members=("a_deep", "solo"))
    with pytest.raises(ConfigError, match="the merge rule needs 'a_deep', which is not in .*; there are deep, solo"):
        EnsembleExport.of(source, merge=MergeFile(rule=other, fitted_on=None))
    export = EnsembleExport.of(source, merge=MergeFile(rule=RULE, fitted_on=None))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(CheckpointError, match="is there already; name a new folder"):
        export.write(str(tmp_path / "full"), advance=quiet)
    assert (tmp_path / "full" / "mine").read_text() == "mine"

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(ensemble_export, "write_merge", full)
    with pytest.raises(OSError, match="no space left"):
        export.write(str(tmp_path / "exported"), advance=quiet)
    assert not (tmp_path / "exported").exists()  # so the same command can start again


def test_bags_of_prepared_rows() -> None:
    rows = Rows(
        dense=np.zeros((3, 0), np.float32),
        values=np.array([7, 8, 9, 1, 2, 3], np.int32),
        lengths=np.array([[1, 1, 1], [2, 0, 1]], np.int32),
        labels=np.zeros(3, np.float32),
        part=np.zeros(3, np.int32),
        row=np.arange(3),
    )
    bags = bags_of(rows, features=("C1", "genres"))
    assert [[part.tolist() for part in bag] for bag in bags.values()] == [
        [[7, 8, 9], [0, 1, 2, 3]],
        [[1, 2, 3], [0, 2, 2, 3]],
    ]
    single = Rows.of_single_ids(
        np.array([[1, 2], [3, 4]], np.int32), dense=rows.dense[:2], labels=rows.labels, part=rows.part, row=rows.row[:2]
    )
    assert [[part.tolist() for part in bag] for bag in bags_of(single, features=("a", "b")).values()] == [
        [[1, 3], [0, 1, 2]],
        [[2, 4], [0, 1, 2]],
    ]
