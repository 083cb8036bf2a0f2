"""Folders made of folders: another merge, jobs side by side; what was there stays, and proves itself again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from configs.errors import ChorusError, ConfigError, DataError
from modules.calibration import Platt
from modules.merge import MERGED, MergeRule
from tests.support.made_predictions import made_predictions
from trainer.metrics.exact import metrics_of_logits
from trainer.predictions.columns import LOGIT_MERGED
from trainer.predictions.reading import Predictions
from trainer.predictions.rewriting import JoinedJob, join_jobs, merge_again
from trainer.predictions.verification import verify_predictions

DRAW = np.random.default_rng(9)
ROWS = 500
LABELS = DRAW.integers(0, 2, ROWS)
LOGITS = {name: DRAW.normal(size=ROWS).astype(np.float32) for name in ("a", "b", "c")}
PARTS = {"day_0": 330, "day_1": 170}
KEPT = {"request": np.array([f"r{i}" for i in range(ROWS)])}
RULE = MergeRule(
    rule="stacking", members=("c", "a"), weights=(0.7, -0.2), intercept=0.1, calibration=Platt(scale=1.2, shift=0.3)
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return made_predictions(
        tmp_path / "made", LABELS, LOGITS, parts=PARTS, range_rows=120, kept=KEPT, probabilities=True
    )


def expected_merge() -> np.ndarray:
    chosen = np.stack([LOGITS["c"], LOGITS["a"]], axis=1)
    return RULE.probabilities(torch.from_numpy(chosen)).float().numpy()


def test_only_the_merge_and_its_figures_change(folder: str, tmp_path: Path) -> None:
    output = str(tmp_path / "again")
    merge_again(Predictions(folder), RULE, output=output)
    before, after = Predictions(folder), Predictions(output)
    for old, new in zip(before.files, after.files, strict=True):
        first, second = (pq.read_table(f"{at}/{file.path}") for at, file in ((folder, old), (output, new)))
        assert first.column_names == second.column_names
        assert first.schema.equals(second.schema)
        assert first.drop_columns([LOGIT_MERGED, MERGED]).equals(second.drop_columns([LOGIT_MERGED, MERGED]))
        assert replace(new, sha256="", num_bytes=0) == replace(old, sha256="", num_bytes=0)
    assert np.array_equal(after.merged(), expected_merge())
    chosen = torch.from_numpy(np.stack([LOGITS["c"], LOGITS["a"]], axis=1))
    assert np.array_equal(after.merged_logits(), RULE.logits(chosen).float().numpy())
    assert MergeRule.of_json(after.manifest.merge) == RULE
    assert after.manifest.checkpoints == before.manifest.checkpoints
    figures = after.manifest.metrics
    assert figures["b"]["auc"] == metrics_of_logits(LABELS, LOGITS["b"]).auc
    assert figures[MERGED]["log_loss_nats"] == metrics_of_logits(LABELS, after.merged_logits()).log_loss_nats
    assert verify_predictions(output).problems == ()


def test_of_some_parts_the_rest_is_left_out(folder: str, tmp_path: Path) -> None:
    output = str(tmp_path / "again")
    manifest = merge_again(Predictions(folder, parts=["day_1"]), RULE, output=output)
    assert (dict(manifest.parts), manifest.num_rows) == ({"day_1": 170}, 170)
    assert np.array_equal(Predictions(output).merged(), expected_merge()[330:])
    assert verify_predictions(output).problems == ()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_without_labels_there_are_no_figures(dtype: str, tmp_path: Path) -> None:
    folder = made_predictions(tmp_path / "made", None, LOGITS, dtype=dtype)
    manifest = merge_again(Predictions(folder), RULE, output=str(tmp_path / "again"))
    assert not manifest.metrics
    assert verify_predictions(str(tmp_path / "again")).problems == ()


def test_a_member_that_is_not_there_is_named(folder: str, tmp_path: Path) -> None:
    rule = MergeRule.fixed("median", members=["a", "d"])
    with pytest.raises(ConfigError, match="needs 'd', which is not in .*; there are a, b, c"):
        merge_again(Predictions(folder), rule, output=str(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_a_changed_file_is_not_passed_on(folder: str, tmp_path: Path) -> None:
    path = Path(folder) / Predictions(folder).files[1].path
    table = pq.read_table(path)
    logits = table.column("logit_a").to_numpy() + np.float32(1.0)
    pq.write_table(table.set_column(table.column_names.index("logit_a"), "logit_a", [logits]), path)
    with pytest.raises(DataError, match="its bytes are not those that were written"):
        merge_again(Predictions(folder), RULE, output=str(tmp_path / "again"))
    assert not (tmp_path / "again" / "manifest.json").exists()


def test_a_merge_beyond_float32_is_refused_by_its_name(folder: str, tmp_path: Path) -> None:
    rule = MergeRule(rule="stacking", members=("a",), weights=(1e300,))
    with pytest.raises(
        ChorusError, match="^merge rule stacking: merged logit .* at row 0 of day_0, though its members'"
    ):
        merge_again(Predictions(folder), rule, output=str(tmp_path / "again"))


def test_paths_out_of_the_folder_are_not_written(folder: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim" / "day_0-000000000000.parquet"
    victim.parent.mkdir()
    victim.write_text("mine")
    path = Path(folder) / "manifest.json"
    path.write_text(path.read_text().replace('"day_0-000000000000', '"../victim/day_0-000000000000'))
    with pytest.raises(DataError, match=r"files\[0\]\.path: '../victim/"):
        merge_again(Predictions(folder), RULE, output=str(tmp_path / "again"))
    assert victim.read_text() == "mine"


def test_a_folder_in_use_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not empty; give an empty folder"):
        merge_again(Predictions(folder), RULE, output=folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file; name a folder"):
        merge_again(Predictions(folder), RULE, output=str(tmp_path / "file"))


def other_job(tmp_path: Path, **changes: object) -> str:
    made = {"labels": LABELS, "parts": PARTS, "range_rows": 120, "kept": KEPT, "probabilities": True, **changes}
    logits = {"a": LOGITS["b"] * 2, "d": LOGITS["c"] - 1}
    return made_predictions(tmp_path / "other", made.pop("labels"), logits, **made)  # type: ignore[arg-type]


def test_two_jobs_side_by_side(folder: str, tmp_path: Path) -> None:
    jobs = [
        JoinedJob(predictions=Predictions(folder)),
        JoinedJob(predictions=Predictions(other_job(tmp_path)), label="new"),
    ]
    output = str(tmp_path / "both")
    manifest = join_jobs(jobs, rule="mean_logit", output=output)
    joined = Predictions(output)
    assert joined.members == ("a", "b", "c", "new_a", "new_d")
    assert [one.label for one in manifest.checkpoints] == ["", "new"]
    columns = np.stack([*LOGITS.values(), LOGITS["b"] * 2, LOGITS["c"] - 1], axis=1)
    assert np.array_equal(joined.logits(), columns)
    assert np.array_equal(joined.labels(), LABELS)
    rule = MergeRule.fixed("mean_logit", members=joined.members)
    assert np.array_equal(joined.merged(), rule.probabilities(torch.from_numpy(columns)).float().numpy())
    assert list(joined.column("request")) == list(KEPT["request"])
    assert set(manifest.metrics) == {*joined.members, MERGED}
    assert verify_predictions(output).problems == ()


def test_two_members_of_one_name_need_labels(folder: str, tmp_path: Path) -> None:
    jobs = [JoinedJob(predictions=Predictions(at)) for at in (folder, other_job(tmp_path))]
    with pytest.raises(ConfigError, match="member 'a' is in two of the folders"):
        join_jobs(jobs, rule="mean_logit", output=str(tmp_path / "both"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dictionary": "another"}, "scored with dictionary 'another'"),
        ({"range_rows": 100}, "was scored with score.range_rows = 100"),
        ({"parts": {"day_0": 300, "day_1": 200}}, "has other rows than"),
        ({"labels": 1 - LABELS}, "rows 0 to 119 of day_0 differ between"),
        ({"labels": np.roll(LABELS[::-1], 1)}, "differ"),
        ({"kept": {"request": KEPT["request"][::-1]}}, "column request of day_0-000000000000.parquet is another in"),
        ({"probabilities": False}, "was scored with score.probabilities = False"),
        ({"dtype": "float16"}, "was scored with score.dtype = 'float16'"),
    ],
)
def test_jobs_of_other_rows_are_refused(changes: dict[str, object], message: str, folder: str, tmp_path: Path) -> None:
    jobs = [
        JoinedJob(predictions=Predictions(folder)),
        JoinedJob(predictions=Predictions(other_job(tmp_path, **changes)), label="new"),
    ]
    with pytest.raises(DataError, match=message):
        join_jobs(jobs, rule="mean_logit", output=str(tmp_path / "both"))
    assert not (tmp_path / "both" / "manifest.json").exists()


def test_labels_of_the_same_sum_in_another_order_are_refused(folder: str, tmp_path: Path) -> None:
    swapped = LABELS.copy()
    one, zero = np.flatnonzero(LABELS[:120] == 1)[0], np.flatnonzero(LABELS[:120] == 0)[0]
    swapped[[one, zero]] = swapped[[zero, one]]
    jobs = [
        JoinedJob(predictions=Predictions(folder)),
        JoinedJob(predictions=Predictions(other_job(tmp_path, labels=swapped)), label="new"),
    ]
    with pytest.raises(DataError, match="column label of day_0-000000000000.parquet is another in"):
        join_jobs(jobs, rule="mean_logit", output=str(tmp_path / "both"))
