"""The report's figures: consistent with each other, with the manifest, and with plain computations."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import DataError
from modules.merge import MERGED, MergeRule
from tests.support.made_predictions import made_predictions
from trainer.analysis.ensemble_report.page import page
from trainer.analysis.ensemble_report.report import Asked, report, study_rule
from trainer.metrics.exact import metrics_of_logits
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.reading import Predictions

NUM_ROWS = 4_000


def made(path: Path, *, num_members: int = 3, spread: float = 0.5, **options: Any) -> Predictions:
    draw = np.random.default_rng(0)
    truth = draw.normal(-1.0, 1.0, NUM_ROWS)
    labels = (draw.random(NUM_ROWS) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    logits = {f"m{index}": truth + draw.normal(0, spread, NUM_ROWS) for index in range(num_members)}
    parts = {"day_0": 2_500, "day_1": 1_500}
    kept = {"C1": draw.integers(0, 90, NUM_ROWS), "C2": np.where(truth > 0, "late", "early")}
    return Predictions(made_predictions(path, labels, logits, parts=parts, kept=kept, **options))


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    return made(tmp_path_factory.mktemp("predictions"))


@pytest.fixture(scope="module")
def found(predictions: Predictions) -> dict[str, Any]:
    return report(predictions, asked=Asked(slices=("C2",), groups=("C1",), command="make it"))


def test_it_is_json_and_the_same_again(predictions: Predictions, found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    asked = Asked(slices=("C2",), groups=("C1",), command="make it")
    assert report(predictions, asked=asked) == found
    assert report(predictions, asked=dataclasses.replace(asked, seed=2)) != found


def test_figures_are_the_manifests_and_the_rows(predictions: Predictions, found: dict[str, Any]) -> None:
    labels, logits = predictions.labels(), predictions.logits()
    for index, column in enumerate(found["columns"]):
        of_manifest: Mapping[str, float] = predictions.manifest.metrics[column["name"]]
        assert column["all_rows"] == of_manifest
        for name in ("log_loss_nats", "ne", "auc", "calibration", "brier"):
            assert column["studied"][name]["value"] == pytest.approx(of_manifest[name], abs=1e-9)
            assert column["studied"][name]["low"] < column["studied"][name]["value"] < column["studied"][name]["high"]
        if column["is_member"]:
            exact = metrics_of_logits(labels, logits[:, index])
            merged = found["columns"][-1]["studied"]["log_loss_nats"]["value"]
            difference = column["minus_merged"]["log_loss_nats"]["value"]
            assert difference == pytest.approx(exact.log_loss_nats - merged, abs=1e-12)
    assert found["columns"][-1]["name"] == MERGED and found["columns"][-1]["minus_merged"] is None
    best = min(predictions.members, key=lambda name: predictions.manifest.metrics[name]["log_loss_nats"])
    assert found["best"]["name"] == best


def test_worth_curve_and_diversity_tell_the_same(found: dict[str, Any]) -> None:
    worth, curve, ambiguity = found["worth"], found["curve"], found["diversity"]["log_loss"]
    for figure, sign in (("log_loss_nats", -1), ("ne", -1), ("auc", 1)):
        total = sign * (worth["all"][figure] - worth["none"][figure])
        assert sum(one["shapley"][figure]["value"] for one in worth["members"]) == pytest.approx(total, abs=1e-12)
        points = curve[figure]["points"]
        assert points[-1]["mean"] == pytest.approx(worth["all"][figure], abs=1e-12)
        lost = [sign * (points[-1]["mean"] - one) for one in (points[-2]["lowest"], points[-2]["highest"])]
        leaving = [one["leave_one_out"][figure]["value"] for one in worth["members"]]
        assert sorted([min(leaving), max(leaving)]) == pytest.approx(sorted(lost), abs=1e-12)
    assert worth["all"]["log_loss_nats"] == pytest.approx(ambiguity["merged"], abs=1e-12)
    assert curve["log_loss_nats"]["points"][0]["mean"] == pytest.approx(ambiguity["members_mean"], abs=1e-12)
    fit = curve["log_loss_nats"]["fit"]
    assert fit["size"] == 6 and fit["limit"]["low"] < fit["limit"]["value"] < fit["limit"]["high"]
    at = fit["limit"]["value"] + fit["scale"] / 6 ** fit["exponent"]
    assert fit["at"]["value"] == pytest.approx(at, abs=1e-12)
    assert fit["gain"]["low"] < fit["gain"]["value"] < fit["gain"]["high"]
    assert fit["gain"]["value"] == pytest.approx(worth["all"]["log_loss_nats"] - at, abs=1e-12)


def test_slices_and_groups(found: dict[str, Any]) -> None:
    by_part, by_column = found["slices"]
    assert [one["value"] for one in by_part["values"]] == ["day_0", "day_1"] and by_part["is_part"]
    assert [one["num_rows"] for one in by_part["values"]] == [2_500, 1_500]
    assert {one["value"] for one in by_column["values"]} == {"late", "early"}
    whole = sum(one["num_rows"] * one["merged"]["log_loss_nats"] for one in by_column["values"]) / NUM_ROWS
    assert whole == pytest.approx(found["columns"][-1]["studied"]["log_loss_nats"]["value"], abs=1e-12)
    (grouped,) = found["grouped_auc"]
    assert grouped["groups"] == 90 and set(grouped["gauc"]) == {"m0", "m1", "m2", MERGED}


def test_the_conclusion_is_that_of_the_figures(found: dict[str, Any], tmp_path: Path) -> None:
    difference = found["best"]["merged_minus_best"]["log_loss_nats"]
    assert found["conclusion"]["verdict"] == "ahead" and difference["high"] < 0
    assert f"lower by {-difference['value']:.5f} nats" in found["conclusion"]["sentences"][0]
    alone = report(made(tmp_path / "one", num_members=1), asked=Asked())
    assert alone["conclusion"]["verdict"] == "single" and alone["curve"]["auc"]["fit"] is None
    same = report(made(tmp_path / "same", num_members=2, spread=0.02), asked=Asked())
    low, high = (same["best"]["merged_minus_best"]["log_loss_nats"][key] for key in ("low", "high"))
    assert same["conclusion"]["verdict"] == "unclear" and low < 0 < high
    assert "cannot be told apart" in same["conclusion"]["sentences"][0]


def test_a_merge_that_one_bad_member_spoils_is_behind(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(-1.0, 1.5, NUM_ROWS)
    labels = (draw.random(NUM_ROWS) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    logits = {"good": truth, "bad": draw.normal(0, 2, NUM_ROWS)}
    found = report(Predictions(made_predictions(tmp_path, labels, logits)), asked=Asked())
    assert found["best"]["name"] == "good" and found["conclusion"]["verdict"] == "behind"
    bad = found["worth"]["members"][1]["leave_one_out"]["log_loss_nats"]
    assert bad["high"] < 0  # it takes away


def test_a_sample_says_so_and_keeps_the_figures_of_all_rows(predictions: Predictions, found: dict[str, Any]) -> None:
    by_part = {part: predictions.manifest.metrics for part in predictions.manifest.parts}
    manifest = dataclasses.replace(predictions.manifest, metrics_by_part=by_part)
    sampled = report(Predictions(predictions.folder, manifest=manifest), asked=Asked(max_rows=1_000, slices=("C2",)))
    assert sampled["studied"]["is_sample"] and sampled["studied"]["rows"] == 1_000
    assert [one["all_rows"] for one in sampled["columns"]] == [one["all_rows"] for one in found["columns"]]
    assert sampled["columns"][0]["studied"] != found["columns"][0]["studied"]
    part, column = sampled["slices"]
    assert part["figures_of"] == "all rows" and part["values"][0]["merged"] == predictions.manifest.metrics[MERGED]
    assert column["figures_of"] == "studied rows" and sum(one["num_rows"] for one in column["values"]) == 1_000


def test_the_rule_of_subsets(predictions: Predictions) -> None:
    def of(**merge: Any) -> PredictionManifest:
        return dataclasses.replace(predictions.manifest, merge={"members": list(predictions.members), **merge})

    rule, note = study_rule(of(rule="confidence", sharpness=2.0))
    assert rule == MergeRule(rule="confidence", members=predictions.members, sharpness=2.0)
    assert note == "the rule of the predictions"
    rule, note = study_rule(of(rule="median", calibration={"kind": "temperature"}))
    assert rule == MergeRule.fixed("median", members=predictions.members) and "without its calibration" in note
    rule, note = study_rule(of(rule="stacking", weights=[1.0, 0.0, 0.0], intercept=0.1))
    assert rule == MergeRule.fixed("mean_logit", members=predictions.members) and "stacking was fitted" in note


def test_equal_members_are_not_told_apart(tmp_path: Path) -> None:
    labels = (np.arange(400) % 9 == 0).astype(np.int8)
    logits = np.random.default_rng(0).normal(-1.0, 0.3, 400)
    found = report(Predictions(made_predictions(tmp_path, labels, dict.fromkeys("abcd", logits))), asked=Asked())
    assert found["conclusion"]["verdict"] == "unclear"
    assert "ahead of no member" in found["conclusion"]["sentences"][2]


def test_the_extrapolation_is_as_unsure_as_rows_and_members_make_it(tmp_path: Path) -> None:
    found = report(made(tmp_path, num_members=5), asked=Asked())
    fit = found["curve"]["log_loss_nats"]["fit"]
    for name in ("limit", "at", "gain"):
        whole, rows, half = fit[name], fit["of_rows"][name], fit["members_half_width"][name]
        assert half > 0 and whole["value"] == rows["value"]
        for end in ("low", "high"):
            apart = np.hypot(rows[end] - rows["value"], half)
            assert abs(whole[end] - whole["value"]) == pytest.approx(apart, rel=1e-9)
    low, high = (f"{fit['gain'][end]:.5f}".replace("-", "−") for end in ("low", "high"))
    told = found["conclusion"]["sentences"][3]
    assert f"(95\u00a0% range over other rows and other members of these kinds: {low} to {high})" in told
    shown = page(found)
    assert "almost by arithmetic, so a small residual is no proof" in shown and "the jackknife over members" in shown


def test_members_that_are_the_same_are_told_and_nothing_is_extrapolated(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(-1.0, 1.0, NUM_ROWS)
    labels = (draw.random(NUM_ROWS) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    one, other = truth + draw.normal(0, 0.5, (2, NUM_ROWS))
    logits = {"a_deep": one, "a_wide": other, "b_deep": one, "b_wide": other}
    found = report(Predictions(made_predictions(tmp_path, labels, logits)), asked=Asked())
    assert found["studied"]["same_members"] == [["a_deep", "b_deep"], ["a_wide", "b_wide"]]
    assert all(curve["fit"] is None for curve in found["curve"].values())
    told = "a_deep and b_deep; a_wide and b_wide are the same predictions"
    assert any(one.startswith(told) for one in found["conclusion"]["sentences"])
    shown = page(found)
    assert f"No curve is fitted: {told}" in shown and "b_deep (same as a_deep)" in shown
    assert "extrapolated, dashed" not in shown and 'data-chart="extrapolated"' not in shown


def test_merged_of_one_member_is_that_member_where_probabilities_saturate(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    logits = np.where(draw.random(200) < 0.5, 200.0, -200.0) + draw.normal(size=200)
    labels = np.where(draw.random(200) < 0.2, logits < 0, logits > 0).astype(np.int8)
    found = report(Predictions(made_predictions(tmp_path, labels, {"a": logits}, figures=False)), asked=Asked())
    member, merged = (column["studied"] for column in found["columns"])
    assert member == merged and merged["log_loss_nats"]["value"] > 20
    assert set(found["columns"][0]["minus_merged"]["auc"].values()) == {0.0}


def test_a_manifest_with_other_figures_is_refused(predictions: Predictions) -> None:
    for figure, called in (("log_loss_nats", "log loss"), ("auc", "AUC")):
        metrics = json.loads(json.dumps(predictions.manifest.metrics))
        metrics["m1"][figure] += 1e-4
        changed = Predictions(predictions.folder, manifest=dataclasses.replace(predictions.manifest, metrics=metrics))
        with pytest.raises(DataError, match=f"by its manifest m1 has {called} .* tools/verify_predictions.py"):
            report(changed, asked=Asked())
    metrics["m1"] |= {"auc_lower": metrics["m1"]["auc"] - 2e-4, "auc_upper": metrics["m1"]["auc"]}  # a bracket's middle
    bracketed = dataclasses.replace(predictions.manifest, metrics=metrics)
    report(Predictions(predictions.folder, manifest=bracketed), asked=Asked())


def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    predictions = made(tmp_path)
    path = tmp_path / predictions.files[1].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path.name}: its bytes are not those"):
        report(predictions, asked=Asked())


def test_rows_that_a_checkpoint_was_trained_on_are_told(predictions: Predictions, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[data]\nroot = "data/made"\ntrain = ["day_9", "day_1"]\n')
    (checkpoint,) = predictions.manifest.checkpoints
    here = dataclasses.replace(checkpoint, label="a", folder=str(tmp_path))
    manifest = dataclasses.replace(predictions.manifest, checkpoints=(here,))
    found = report(Predictions(predictions.folder, manifest=manifest), asked=Asked())
    assert found["scored"]["trained_on"] == [{"checkpoint": "a", "parts": ["day_1"]}]
    told = "Note: a was trained on day_1: these rows were trained on; figures on them flatter."
    assert found["conclusion"]["sentences"][-1] == told and told in page(found)
