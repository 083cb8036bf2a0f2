"""The facts of every kind of data: prepared folders, the stream, reports and outlines, and what is no data at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs.ensemble_schema import Member
from configs.errors import ChorusError
from configs.schema import Data, RunConfig, Synthetic
from configs.score_schema import Score
from configs.section import ArchConfig
from configs.training_schema import Train
from tests.unit.trainer.data.prepared import PartArrays, folder_of, mixed_arrays, mixed_folder, prepared_folder
from trainer import storage
from trainer.analysis.data_report.report import report
from trainer.data.manifest import FeatureSpec
from trainer.data.reading.source import PreparedSource
from trainer.planning.data_facts import data_facts
from trainer.planning.distinct_ids import expected_distinct

OUTLINES = Path(__file__).resolve().parents[4] / "configs" / "outlines"


def _config(root: str = "", *, batch_size: int = 1_024, score: Score | None = None, **data: Any) -> RunConfig:
    return RunConfig(
        members={"deep": Member(arch=ArchConfig(kind="mlp"))},
        data=Data(root=root, **data),
        train=Train(batch_size=batch_size),
        score=score or Score(),
    )


def _refusal(config: RunConfig, path: str = "") -> str:
    with pytest.raises(ChorusError) as refused:
        data_facts(config, path=path)
    return str(refused.value)


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """A prepared folder with every kind of feature."""
    parts = {name: mixed_arrays(rows, seed=rows) for name, rows in (("a", 300), ("b", 200), ("c", 77))}
    return mixed_folder(tmp_path / "mixed", parts)


def test_of_a_prepared_folder(mixed: str) -> None:
    config = _config(mixed, train=("a", "b"), score=Score(parts=("c",)))
    facts = data_facts(config)
    assert facts.features.table_rows == {"C1": 20, "genres": 50, "E1": 1_000, "N1": 9, "M1": 30}
    assert facts.features.dense_names == ("I1",)
    assert (facts.train_rows, facts.score_rows) == (500, 77)
    genres = sum(len(mixed_arrays(rows, seed=rows)["genres_values"]) for rows in (300, 200))
    means = {name: traffic.mean_ids for name, traffic in facts.traffic.items()}
    assert means == {"C1": 1.0, "genres": genres / 500, "E1": 4.0, "N1": 1.0, "M1": 3.0}
    # dense, two ids, numeric_ids, M1's three, weight, label; genres' ids and an offset of 8 bytes
    assert facts.stored_bytes == round(4 * (1 + 2 + 1 + 3 + 1 + 1) + 4 * genres / 500 + 8)
    assert mixed in facts.origin


def test_a_folder_given_apart_is_taken_in_place_of_the_runs(mixed: str) -> None:
    elsewhere = data_facts(_config(), path=mixed)
    assert (elsewhere.train_rows, elsewhere.score_rows) == (577, 577)
    assert elsewhere.features == data_facts(_config(mixed, train=("a",))).features


def test_numbers_that_have_ids_too_are_known_by_both_names(tmp_path: Path) -> None:
    features = (
        FeatureSpec(name="I1", kind="dense", file="dense", column=0),
        FeatureSpec(name="C1", kind="id", file="sparse", column=0, rows=5),
        FeatureSpec(name="I1_id", kind="id", file="numeric_ids", column=0, rows=7),
    )
    arrays = {
        "dense": np.zeros((40, 1), np.float32),
        "sparse": np.ones((40, 1), np.int32),
        "numeric_ids": np.ones((40, 1), np.int32),
        "labels": np.zeros((40, 1), np.int32),
    }
    root = folder_of(tmp_path / "data", {"a": arrays}, features=features)
    assert data_facts(_config(root, train=("a",))).features.numeric_ids == {"I1": "I1_id"}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report(root, reference=(), memory_bytes=1 << 20, num_workers=1)))
    assert data_facts(_config(), path=str(path)).features.numeric_ids == {"I1": "I1_id"}


@pytest.mark.parametrize("batch_size", [256, 4_096])
def test_a_batch_is_expected_to_hold_as_many_distinct_ids_as_batches_do(tmp_path: Path, batch_size: int) -> None:
    """Of ids that follow no Zipf's law at all, and lie in the file in order."""
    random = np.random.default_rng(5)
    skewed = np.minimum(random.geometric(0.01, 20_000), 9_999)
    sparse = np.stack([np.sort(skewed) % 10, random.integers(0, 100, 20_000), np.zeros(20_000)], axis=1)
    part = PartArrays(
        dense=np.zeros((20_000, 2), np.float32),
        sparse=sparse.astype(np.int32),
        labels=np.zeros((20_000, 1), np.int32),
    )
    facts = data_facts(_config(prepared_folder(tmp_path / "d", {"a": part}), train=("a",), batch_size=batch_size))
    for column, (name, rows) in enumerate(facts.features.table_rows.items()):
        batches = [random.permutation(sparse[:, column])[:batch_size] for _ in range(20)]
        held = np.mean([len(np.unique(batch)) for batch in batches])
        expected = expected_distinct(table_rows=rows, num_ids=float(batch_size), zipf=facts.traffic[name].zipf)
        assert expected == pytest.approx(held, rel=0.05, abs=0.3)


def test_batches_are_sampled_from_all_over_a_log(tmp_path: Path) -> None:
    """C2 is one id for two thirds of it, longer than the sample."""
    num_rows = 300_000
    sparse = np.zeros((num_rows, 3), np.int32)
    sparse[200_000:, 1] = np.random.default_rng(1).integers(1, 100, 100_000)
    part = PartArrays(
        dense=np.zeros((num_rows, 2), np.float32), sparse=sparse, labels=np.zeros((num_rows, 1), np.int32)
    )
    facts = data_facts(_config(prepared_folder(tmp_path / "d", {"a": part}), train=("a",), batch_size=300))
    expected = expected_distinct(table_rows=100, num_ids=300.0, zipf=facts.traffic["C2"].zipf)
    assert expected == pytest.approx(1 + 99 * (1 - (1 - 1 / 297) ** 300), rel=0.05)


def test_of_a_remote_folder_only_the_smallest_part_is_fetched(mixed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def recorded(*, root: str, parts: Sequence[str]) -> PreparedSource:
        opened.extend(parts)
        return PreparedSource(root=root, parts=parts)

    remote = SimpleNamespace(is_file=storage.is_file, join=storage.join, is_remote=lambda path: True)
    monkeypatch.setattr("trainer.planning.data_facts.storage", remote)
    monkeypatch.setattr("trainer.planning.data_facts.PreparedSource", recorded)
    facts = data_facts(_config(mixed, train=("a", "b"), score=Score(parts=("c",))))
    assert opened == ["b"]
    assert (facts.train_rows, facts.score_rows) == (500, 77)


def test_of_the_synthetic_stream() -> None:
    stream = Synthetic(train_rows=3_000, valid_rows=500, max_table_rows=2_000)
    facts = data_facts(_config(synthetic=stream, batch_size=512))
    assert (facts.train_rows, facts.score_rows, facts.stored_bytes) == (3_000, 500, 160)
    assert len(facts.traffic) == 26 and facts.features.table_rows["C3"] == 2_002
    assert facts.traffic["C3"].zipf > 0.5  # its values are skewed
    assert all(traffic.mean_ids == 1.0 for traffic in facts.traffic.values())


def test_of_a_report(mixed: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report(mixed, reference=(), memory_bytes=1 << 20, num_workers=1)))
    config = _config(train=(), score=Score(parts=("c",)))
    facts, of_folder = data_facts(config, path=str(path)), data_facts(config, path=mixed)
    assert facts.features.table_rows == of_folder.features.table_rows
    assert facts.features.dense_names == of_folder.features.dense_names
    assert (facts.train_rows, facts.score_rows) == (577, 77)
    for name, traffic in of_folder.traffic.items():
        assert facts.traffic[name].mean_ids == pytest.approx(traffic.mean_ids)
        assert facts.traffic[name].zipf >= 0
    named = dataclasses.replace(config, data=Data(root="gone", train=("a", "b")))
    assert data_facts(named, path=str(path)).train_rows == 500
    assert "has no part 'day_0'; name some of a, b, c" in _refusal(_config("gone", train=("day_0",)), str(path))


def test_of_an_outline() -> None:
    facts = data_facts(_config(), path=str(OUTLINES / "mlperf_dcnv2.toml"))
    assert sum(facts.features.table_rows.values()) == 204_184_588
    assert sum(traffic.mean_ids for traffic in facts.traffic.values()) == 214
    assert facts.features.dense_names == tuple(f"I{place}" for place in range(1, 14))
    assert (facts.train_rows, facts.score_rows, facts.stored_bytes) == (4_195_197_692, 89_137_319, 160)


def test_an_outline_that_says_little(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text("num_rows = 1_000\ndense = 2\n[features]\nuser = {rows = 50}\ntags = {rows = 9, mean_ids = 2.5}\n")
    facts = data_facts(_config(), path=str(path))
    assert (facts.score_rows, facts.stored_bytes) == (1_000, 26)  # 2 numbers, 3.5 ids, a label
    assert facts.traffic["user"].mean_ids == 1.0 and facts.traffic["tags"].zipf == 0.0


def test_what_is_not_there_is_refused_with_a_remedy(mixed: str, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    assert _refusal(_config(gone, train=("a",))).startswith(
        f"data.root: {gone!r} is no prepared folder; prepare it, or"
    )
    assert "give --data a folder that is there" in _refusal(_config(gone, train=("a",)))
    assert _refusal(_config(), gone).startswith(f"--data: {gone!r} is no prepared folder")
    assert _refusal(_config(), f"{gone}.json").startswith(f"--data: no file '{gone}.json'; tools/report_data.py")
    assert _refusal(_config(), f"{gone}.toml").startswith(f"{gone}.toml: no such file; there are ")
    assert _refusal(_config(mixed)).startswith("data.train: empty;")
    assert _refusal(_config(mixed, train=("z",))) == f"data.train: {mixed} has no part 'z'; name some of a, b, c"
    no_part = _config(mixed, train=("a",), score=Score(parts=("z",)))
    assert _refusal(no_part) == f"score.parts: {mixed} has no part 'z'; name some of a, b, c"


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    root = mixed_folder(tmp_path / "none", {"a": mixed_arrays(0, seed=1)})
    assert _refusal(_config(root, train=("a",))) == f"data.train: its parts in {root} hold no rows; name parts that do"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other", "format_version": 1}', '"text"'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    assert f"{path}: not a data report (" in _refusal(_config(), str(path))
