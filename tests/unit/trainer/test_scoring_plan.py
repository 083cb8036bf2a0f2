"""The scoring plan: what is refused before anything is loaded, and what decides the bytes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ChorusError, ConfigError
from tests.support.runs import small_run
from tests.unit.trainer.data.prepared import part_arrays, prepared_folder
from tests.unit.trainer.ranks import OneOfMany
from trainer.checkpoints.manifest import CheckpointManifest, read_manifest, write_manifest
from trainer.data.reading.source import PreparedSource
from trainer.scored_run import ScoredRun
from trainer.scoring_plan import ScoringPlan, plan_scoring

PARTS = {"day_0": part_arrays(23, seed=1), "day_1": part_arrays(10, seed=2)}


class Alone(OneOfMany):
    """One rank, for the check of the data."""

    def together(self, do: Any) -> Any:
        return do()


@pytest.fixture
def root(tmp_path: Path) -> str:
    return prepared_folder(tmp_path / "data", PARTS)


def run_of(root: str, *words: str, label: str = "", step: int = 7) -> ScoredRun:
    """A checkpoint without weights, of data like the folder's."""
    features = PreparedSource(root=root, parts=[]).features
    folder = Path(root).parent / f"{label or 'it'}_{step}"
    folder.mkdir(exist_ok=True)
    model = {
        "dense_features": list(features.dense_names),
        "table_rows": dict(features.table_rows),
        "dictionary": features.dictionary,
        "numeric_ids": dict(features.numeric_ids),
    }
    manifest = CheckpointManifest(
        folder=str(folder),
        step=step,
        world_size=1,
        progress={"step": step, "epoch": 0, "row": 0, "rows_total": 0},
        model=model,
        data={},
        learning={},
        quality=None,
        column_pieces={},
        files={},
    )
    write_manifest(manifest)
    return ScoredRun(label=label, folder=str(folder), config=small_run(f"--data.root={root}", *words))


def plan(*runs: ScoredRun) -> ScoringPlan:
    return plan_scoring(runs, output="out", runtime=Alone())  # type: ignore[arg-type]


def test_all_rows_are_cut_and_their_labels_known(root: str) -> None:
    found = plan(run_of(root, "--score.range_rows=10"))
    assert [(rows.part, rows.first_row, rows.num_rows) for rows in found.ranges] == [
        ("day_0", 0, 10),
        ("day_0", 10, 10),
        ("day_0", 20, 3),
        ("day_1", 0, 10),
    ]
    assert {name: part.label_sum for name, part in found.parts.items()} == {
        name: int(arrays.labels.sum()) for name, arrays in PARTS.items()
    }
    assert found.form.members == ("deep", "cross", "dot", "factor")
    manifest = found.manifest([])
    assert (manifest.parts, manifest.checkpoints[0].step) == ({"day_0": 23, "day_1": 10}, 7)
    json.dumps(found.decides)


@pytest.mark.parametrize(
    "word",
    [
        "--score.batch_size=8",
        "--score.range_rows=5",
        "--score.dtype=float16",
        "--score.probabilities=true",
        '--score.keep=["C1"]',
        "--score.tables=int8",
        "--merge.rule=median",
        "--dense.precision=bf16",
        '--score.parts=["day_0"]',
    ],
)
def test_what_changes_the_bytes_is_in_the_plan(root: str, word: str) -> None:
    assert plan(run_of(root)).decides == plan(run_of(root)).decides
    assert plan(run_of(root)).decides != plan(run_of(root, word)).decides


def test_another_checkpoint_or_other_rows_are_another_plan(root: str, tmp_path: Path) -> None:
    before = plan(run_of(root)).decides
    assert plan(run_of(root, step=8)).decides != before
    assert plan(run_of(root, "--data.prefetch_batches=0", "--score.metrics_memory_gb=3")).decides == before
    prepared_folder(tmp_path / "data", {**PARTS, "day_1": part_arrays(10, seed=3)})
    assert plan(run_of(root)).decides != before


def test_data_that_were_moved_are_the_same_plan(root: str, tmp_path: Path) -> None:
    before = plan(run_of(root)).decides
    moved = tmp_path / "moved" / "data"
    moved.parent.mkdir()
    Path(root).rename(moved)
    again = run_of(str(moved))
    assert plan(dataclasses.replace(again, folder=str(tmp_path / "it_7"))).decides == before


@pytest.mark.parametrize("name", ["merged", "row", "logit_deep"])
def test_a_kept_column_of_our_own_name_is_refused(root: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"score.keep: '{name}' is a column of the predictions' own; rename it"):
        plan(run_of(root, f'--score.keep=["{name}"]'))


def test_a_kept_column_that_is_not_there_is_refused(root: str) -> None:
    with pytest.raises(ChorusError, match="score.keep: .*C9"):
        plan(run_of(root, '--score.keep=["C9"]'))


def test_a_merge_of_members_that_are_not_scored_is_refused(root: str, tmp_path: Path) -> None:
    path = tmp_path / "merge.toml"
    path.write_text('rule = "median"\nmembers = ["deep", "nobody"]\n')
    with pytest.raises(ConfigError, match="merges 'nobody', which is not scored; the members here are deep, cross"):
        plan(run_of(root, f"--score.merge_file={path}"))
    path.write_text('rule = "median"\nmembers = ["dot", "deep"]\n')
    found = plan(run_of(root, f"--score.merge_file={path}"))
    assert (found.form.merge.members, found.decides["merge"]["rule"]) == (("dot", "deep"), "median")


def test_checkpoints_share_one_dictionary(root: str) -> None:
    first, second = run_of(root, label="a"), run_of(root, label="b")
    found = plan(first, second)
    assert found.form.members[::4] == ("a_deep", "b_deep") and len(found.form.members) == 8
    assert found.form.merge.members == found.form.members
    manifest = read_manifest(second.folder)
    for change, told in (
        ({"dictionary": "d2"}, "were trained on the ids of different dictionaries, 'd1' and 'd2'"),
        ({"table_rows": {"C1": 10, "C2": 101, "C3": 4}}, "differ in rows of table C2: 100 and 101"),
        ({"numeric_ids": {"I1": "I1_id"}}, "differ in the ids of I1: None and I1_id"),
        ({"dense_features": ["I2"]}, "read different dense features, I1, I2 and I2"),
    ):
        write_manifest(dataclasses.replace(manifest, model={**manifest.model, **change}))
        with pytest.raises(ChorusError) as refused:
            plan(first, second)
        assert str(refused.value) == f"--checkpoint: a and b {told}; score them in jobs of their own"
