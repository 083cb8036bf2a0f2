"""Whether a checkpoint fits a run: its model, its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.errors import CheckpointError, DataError
from trainer.checkpoints.manifest import CheckpointManifest, ModelFacts
from trainer.data.reading.source import SourceFeatures


def check_same_features(manifest: CheckpointManifest, features: SourceFeatures, *, root: str) -> None:
    """Refuses data that were prepared with other features, table sizes or dictionary than the checkpoint's.

    Raises:
        DataError: names the first features that differ.
    """
    saved = manifest.model["table_rows"]
    ours = dict(features.table_rows)
    different = [name for name in {**saved, **ours} if saved.get(name) != ours.get(name)]
    if different:
        shown = ", ".join(f"{name} has {ours.get(name)} rows, not {saved.get(name)}" for name in different[:3])
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise DataError(
            f"data.root: {root!r} was prepared with other table sizes than the data of {manifest.folder}:"
            f" {shown}{more}; prepare it with that dictionary"
        )
    if list(features.dense_names) != list(manifest.model["dense_features"]):
        raise DataError(
            f"data.root: {root!r} has dense features {', '.join(features.dense_names)}; the checkpoint"
            f" {manifest.folder} was trained on {', '.join(manifest.model['dense_features'])}"
        )
    if features.dictionary != manifest.model["dictionary"]:
        raise DataError(
            f"data.root: {root!r} was prepared with another dictionary than the data of {manifest.folder}, so its ids"
            " mean other values; prepare it with that dictionary"
        )


def check_same_model(manifest: CheckpointManifest, facts: ModelFacts) -> None:
    """Refuses a checkpoint of another model, naming every member, table and feature that differs.

    Raises:
        CheckpointError: something differs.
    """
    problems = model_differences(manifest.model, facts.as_json(), theirs="the checkpoint", ours="this run")
    if problems:
        raise CheckpointError(
            f"{manifest.folder} is a checkpoint of another model; use its own run.toml and data, or take what both"
            " have with checkpoint.start_from:\n  " + "\n  ".join(problems)
        )


def model_differences(
    their_model: Mapping[str, Any], our_model: Mapping[str, Any], *, theirs: str, ours: str, at_most: int = 8
) -> list[str]:
    """A line for every member, table and feature that differs between two models as manifests have them.

    Args:
        their_model: The one.
        our_model: The other.
        theirs: What to call the one.
        ours: What to call the other.
        at_most: Lines; how many more there are is said in one after them.
    """
    problems = []
    for what in ("members", "inputs", "groups", "tables", "table_rules", "table_rows"):
        for name in sorted(set(our_model[what]) | set(their_model[what])):
            mine, saved = our_model[what].get(name), their_model[what].get(name)
            if mine != saved:
                problems.append(f"{what}.{name}: {_told(saved)} in {theirs}, {_told(mine)} in {ours}")
    for what in ("dense_features", "dictionary"):
        if our_model[what] != their_model[what]:
            problems.append(f"{what}: {their_model[what]} in {theirs}, {our_model[what]} in {ours}'s data")
    return problems[:at_most] + ([f"and {len(problems) - at_most} more"] if len(problems) > at_most else [])


def _told(value: Any) -> str:
    return "absent" if value is None else str(value)
