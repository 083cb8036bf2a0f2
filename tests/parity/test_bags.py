"""Bags of any length, bags from their first id, row weights and data without dense features: sharded as unsharded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sharding.constraints import SHARDING_TYPES
from tests.support.runs import placed, small_run
from tests.support.state import assert_bit_equal, assert_close
from tests.support.training import score_run, step_by_hand, train_run
from tests.support.unsharded import train_unsharded
from tests.unit.trainer.data.prepared import MIXED_FEATURES, folder_of, mixed_arrays, mixed_folder

NUM_STEPS = 5  # 110 rows in batches of 24: the last one is ragged
PARTS = {"a": mixed_arrays(70, seed=1), "b": mixed_arrays(40, seed=2), "today": mixed_arrays(30, seed=3)}
ATOL = 2e-5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    parts = {name: dict(arrays) for name, arrays in PARTS.items()}
    del parts["today"]["labels"]
    return mixed_folder(tmp_path_factory.mktemp("mixed") / "data", parts)


def run_on(root, *overrides):
    return small_run(f"--data.root={root}", '--data.train=["a", "b"]', *overrides)


def assert_same_steps(plain, sharded):
    assert_bit_equal(plain.start, sharded.start)
    for step in range(NUM_STEPS):
        np.testing.assert_allclose(sharded.logits[step], plain.logits[step], atol=ATOL, err_msg=f"step {step}")
        np.testing.assert_allclose(sharded.losses[step], plain.losses[step], atol=ATOL, err_msg=f"step {step}")
    assert_close(plain.end, sharded.end, atol=ATOL)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("placement", ["data_parallel", "table_wise", "row_wise", "auto"])
def test_every_kind_of_feature(ranks, tmp_path, root, world_size, placement):
    config = run_on(root, *placed(placement))
    plain = train_unsharded(config, NUM_STEPS)
    assert [len(logits) for logits in plain.logits] == [24, 24, 24, 24, 14]
    assert_same_steps(plain, ranks(world_size).run(step_by_hand, config, str(tmp_path), NUM_STEPS)[0])


def test_bags_under_every_placement(ranks, tmp_path, root):
    """Four ranks on two hosts; the features go round the placements, in the own tables three further on."""
    keyed = [feature.name for feature in MIXED_FEATURES if feature.kind in ("id", "bag")]
    kinds = list(SHARDING_TYPES)
    words = [
        f"--tables.{group}.features.{name}.placement={kinds[(at + 3 * shift) % len(kinds)]}"
        for shift, group in enumerate(("shared", "own"))
        for at, name in enumerate(keyed)
    ]
    rule = [
        f"--tables.{group}.{key}" for group in ("shared", "own") for key in ("dim=8", "optimizer=adagrad", "eps=1e-3")
    ]
    config = run_on(root, *rule, *words)
    sharded = ranks(4).run(step_by_hand, config, str(tmp_path), NUM_STEPS)[0]
    assert {kind.value for kind in SHARDING_TYPES.values()} == set(sharded.placements.values())
    assert_same_steps(train_unsharded(config, NUM_STEPS), sharded)


@pytest.mark.parametrize("world_size", [1, 2])
def test_without_dense_features(ranks, tmp_path, world_size):
    features = [feature for feature in MIXED_FEATURES if feature.kind in ("id", "bag")]
    roles = ("sparse", "numeric_ids", "genres_values", "genres_offsets", "M1", "labels")
    parts = {name: {role: PARTS[name][role] for role in roles} for name in ("a", "b")}
    config = run_on(folder_of(tmp_path / "data", parts, features=features))
    plain = train_unsharded(config, NUM_STEPS)
    assert_same_steps(plain, ranks(world_size).run(step_by_hand, config, f"{tmp_path}/run", NUM_STEPS)[0])
    _, progress = ranks(world_size).run(train_run, config, f"{tmp_path}/run")[0]
    assert progress["step"] == 6
    _, progress = ranks(1).run(train_run, run_on(config.data.root, "--train.until={steps = 8}"), f"{tmp_path}/run")[0]
    assert progress["step"] == 8, "its checkpoint loads again"


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_what_is_made_ahead_changes_no_bit(ranks, tmp_path, root, prefetch):
    words = ("--train.until={steps = 12}", "--train.evaluate_every.steps=5", '--data.valid=["b"]', '--data.train=["a"]')
    expected, cursor = ranks(2).run(train_run, run_on(root, *words, "--data.prefetch_batches=2"), f"{tmp_path}/a")[0]
    words = (*words, f"--data.prefetch_batches={prefetch}")
    found, progress = ranks(2).run(train_run, run_on(root, *words), f"{tmp_path}/b")[0]
    assert_bit_equal(expected, found)
    assert progress == cursor


def test_a_run_goes_on_at_the_row_it_has_trained_and_not_at_one_made_ahead(ranks, tmp_path, root):
    words = ("--data.prefetch_batches=3", "--train.pipeline=plain")
    whole, _ = ranks(2).run(train_run, run_on(root, *words, "--train.until={steps = 13}"), f"{tmp_path}/a")[0]
    ranks(2).run(train_run, run_on(root, *words, "--train.until={steps = 7}"), f"{tmp_path}/b")
    resumed, progress = ranks(2).run(train_run, run_on(root, *words, "--train.until={steps = 13}"), f"{tmp_path}/b")[0]
    assert_bit_equal(whole, resumed)
    assert (progress["epoch"], progress["row"]) == (2, 72)


def test_scoring_is_the_same_at_every_world_size(ranks, tmp_path, root):
    config = run_on(root, "--score.batch_size=16", "--score.range_rows=25")
    ranks(2).run(train_run, config, f"{tmp_path}/run")
    checkpoint = f"{tmp_path}/run/checkpoints/step_0000000006"
    tables = {}
    for world_size in (1, 2):
        output = f"{tmp_path}/of_{world_size}"
        figures = ranks(world_size).run(score_run, config, checkpoint, output)[0]
        assert figures == {}, "a part without labels leaves no figures"
        tables[world_size] = pa.concat_tables(
            pq.read_table(path, columns=["part", "row", "label", "logit_deep", "logit_dot"])
            for path in sorted(Path(output).glob("*.parquet"))
        ).unify_dictionaries()
    one, two = (table.to_pydict() for table in tables.values())
    assert one["row"] == [*range(70), *range(40), *range(30)]
    for name in ("part", "row", "label"):
        assert one[name] == two[name]
    for name in ("logit_deep", "logit_dot"):
        np.testing.assert_allclose(one[name], two[name], atol=ATOL)
    labels = [PARTS[name]["labels"][:, 0].tolist() for name in ("a", "b")]
    assert one["label"] == [*labels[0], *labels[1], *[None] * 30]
    named = run_on(root, "--score.batch_size=16", '--score.parts=["b"]')
    figures = ranks(2).run(score_run, named, checkpoint, f"{tmp_path}/labelled")[0]
    assert set(figures) == {"deep", "cross", "dot", "factor", "merged"}
    assert figures["merged"].num_rows == 40
