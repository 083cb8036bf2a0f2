"""Whether a checkpoint fits a run: a sentence for each way that it can be another's."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from configs.errors import DataError
from tests.unit.trainer.checkpoints.made import FACTS, FEATURES, refusal
from trainer.checkpoints.manifest import CheckpointManifest, ModelFacts
from trainer.checkpoints.matching import check_same_features, check_same_model
from trainer.data.reading.source import SourceFeatures


def manifest_of(facts: ModelFacts = FACTS) -> CheckpointManifest:
    model = json.loads(json.dumps(facts.as_json()))
    return CheckpointManifest(
        folder="runs/a/step_7",
        step=7,
        world_size=1,
        progress={},
        model=model,
        data={},
        learning={},
        quality=None,
        column_pieces={},
        files={},
    )


def test_the_same_fits() -> None:
    check_same_model(manifest_of(), FACTS)
    check_same_features(manifest_of(), FEATURES, root="data")


def features(**changes: Any) -> SourceFeatures:
    return dataclasses.replace(FEATURES, **changes)


@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        (
            dataclasses.replace(FACTS, members={**FACTS.members, "deep": "dlrm"}),
            "members.deep: mlp in the checkpoint, dlrm in this run",
        ),
        (
            dataclasses.replace(FACTS, members={"deep": FACTS.members["deep"]}),
            "members.solo: mlp in the checkpoint, absent in this run",
        ),
        (
            dataclasses.replace(FACTS, groups={**FACTS.groups, "solo": "shared"}),
            "groups.solo: solo in the checkpoint, shared in this run",
        ),
        (
            dataclasses.replace(FACTS, tables={**FACTS.tables, "shared/C1": (10, 16)}),
            "tables.shared/C1: [10, 8] in the checkpoint, [10, 16] in this run",
        ),
        (
            dataclasses.replace(FACTS, table_rules={**FACTS.table_rules, "solo/C1": "adagrad"}),
            "table_rules.solo/C1: sgd in the checkpoint, adagrad in this run",
        ),
        (
            dataclasses.replace(FACTS, features=features(table_rows={"C1": 10, "C2": 20, "C3": 4})),
            "table_rows.C3: absent in the checkpoint, 4 in this run",
        ),
        (
            dataclasses.replace(FACTS, features=features(dense_names=("I2", "I1"))),
            "dense_features: ['I1', 'I2'] in the checkpoint, ['I2', 'I1'] in this run's data",
        ),
        (
            dataclasses.replace(FACTS, features=features(dictionary="d2")),
            "dictionary: d1 in the checkpoint, d2 in this run's data",
        ),
    ],
)
def test_another_model_is_refused_with_what_differs(ours: ModelFacts, problem: str) -> None:
    assert refusal(lambda: check_same_model(manifest_of(), ours)) == (
        "runs/a/step_7 is a checkpoint of another model; use its own run.toml and data, or take what both have"
        " with checkpoint.start_from:\n  " + problem
    )


def test_only_the_first_differences_are_told() -> None:
    many = dataclasses.replace(FACTS, tables={f"shared/C{i}": (1, 4) for i in range(10, 20)})
    text = refusal(lambda: check_same_model(manifest_of(), many)).splitlines()
    assert len(text) == 1 + 8 + 1
    assert text[-1] == "  and 4 more"


@pytest.mark.parametrize(
    ("ours", "sentence"),
    [
        (
            features(table_rows={"C1": 10, "C2": 21}),
            "data.root: 'days' was prepared with other table sizes than the data of runs/a/step_7: C2 has 21 rows,"
            " not 20; prepare it with that dictionary",
        ),
        (
            features(table_rows={f"D{i}": 1 for i in range(9)}),
            "data.root: 'days' was prepared with other table sizes than the data of runs/a/step_7: C1 has None rows,"
            " not 10, C2 has None rows, not 20, D0 has 1 rows, not None and 8 more; prepare it with that dictionary",
        ),
        (
            features(dense_names=("I1",)),
            "data.root: 'days' has dense features I1; the checkpoint runs/a/step_7 was trained on I1, I2",
        ),
        (
            features(dictionary="d2"),
            "data.root: 'days' was prepared with another dictionary than the data of runs/a/step_7, so its ids"
            " mean other values; prepare it with that dictionary",
        ),
    ],
)
def test_other_data_are_refused_with_what_differs(ours: SourceFeatures, sentence: str) -> None:
    assert refusal(lambda: check_same_features(manifest_of(), ours, root="days"), DataError) == sentence
