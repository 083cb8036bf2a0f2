"""The report on a prediction folder as plain values; the tables and the page show these and nothing else.

Keys (format "chorus-ensemble-report", version 1). An INTERVAL is {value, low, high} at `studied.confidence`; "nats" are
of log loss; null stands for a figure that is not defined.

    conclusion   {verdict: ahead | behind | unclear | single, sentences}
    scored       what was scored: {folder, rows, files, row_hash, label_rate, parts: [{name, rows}], members, merge,
                 checkpoints, data, settings, trained_on: [{checkpoint, parts}]}; from the manifest
    studied      the rows behind all intervals and subsets: {rows, is_sample, block_rows, blocks, replicates, seed,
                 confidence, rule (by which subsets are merged), rule_note, subsets, all_subsets,
                 circles (that subsets were drawn from; null: all were taken),
                 same_members: groups of members with equal logits, bit for bit}
    columns      members, then merged: {name, is_member, all_rows (the manifest's figures), studied: figure -> INTERVAL
                 (log_loss_nats, ne, brier, calibration, auc, auc_delong), minus_merged: the same of the paired
                 difference, simultaneous_half_width_nats (of log loss, for all members at once)}; minus_merged is null
                 for merged
    best         the best single member: {name, merged_minus_best: figure -> INTERVAL}
    worth        {members: [{name, leave_one_out, shapley: figure -> INTERVAL (log_loss_nats, ne) or {value} (auc),
                 distance_nats}], shapley_error: null or figure -> standard error of sampling (the intervals of shapley
                 hold it), none: figure -> value, all: figure -> value}
    curve        figure -> {points: [SizePoint], fit: null (also where members are the same) or {limit, scale, exponent,
                 residual, is_at_edge, size, at: INTERVAL at `size`, gain: INTERVAL (all members minus `at`); these
                 intervals are of other rows and other members together, of_rows: the same of other rows alone,
                 members_half_width: of other members alone, without_one: {limit: [lo, hi], at}}}
    diversity    {logit_correlation, residual_correlation, disagreement: [M, M], mean_probability,
                 log_loss, squared_error: {merged, members, members_mean, ambiguity, distances}}
    reliability  [{name, bins: [ReliabilityBin]}]
    slices       [{column, is_part, figures_of: all rows | studied rows, values: [Slice]}]
    grouped_auc  [{column, groups, mixed_groups, mixed_rows, gauc: name -> value}]
    command      how to make the report again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modules.merge import MERGED, RULES, MergeRule
from trainer.analysis.ensemble_report.columns import read_column, study_columns
from trainer.analysis.ensemble_report.gains import curves, worth
from trainer.analysis.ensemble_report.grouping import group_sections, slice_sections
from trainer.analysis.ensemble_report.plain_values import plain
from trainer.analysis.ensemble_report.reliability_curve import reliability_curve
from trainer.analysis.ensemble_report.words import conclusion
from trainer.analysis.trained_rows import trained_on
from trainer.analysis.worth.block_bootstrap import draw_blocks
from trainer.analysis.worth.diversity import Diversity, diversity
from trainer.analysis.worth.study_rows import StudyRows, read_study_rows
from trainer.analysis.worth.subsets import SubsetPlan, plan_subsets, score_subsets
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.reading import Predictions

FORMAT = "chorus-ensemble-report"
FORMAT_VERSION = 1
CONFIDENCE = 0.95
DEFAULT_MAX_ROWS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a report is asked for."""

    max_rows: int = DEFAULT_MAX_ROWS
    seed: int = 1
    slices: tuple[str, ...] = ()  # kept columns
    groups: tuple[str, ...] = ()  # kept columns
    command: str = ""


def report(predictions: Predictions, *, asked: Asked) -> dict[str, Any]:
    """Studies a prediction folder; progress goes to stderr.

    Raises:
        DataError: the folder's rows cannot be studied, or a file or a figure is not that of its manifest.
        ConfigError: `max_rows` is too few.
    """
    manifest = predictions.manifest
    names = tuple(dict.fromkeys((*asked.slices, *asked.groups)))
    rows = read_study_rows(predictions, max_rows=asked.max_rows, columns=names)
    replicates = draw_blocks(len(rows.block_starts), seed=asked.seed)
    study = study_columns(rows, replicates, of_all_rows=manifest.metrics)
    if not rows.is_sample:
        study.refuse_other_figures(predictions.folder)
    rule, rule_note = study_rule(manifest)
    plan = plan_subsets(len(rows.members), seed=asked.seed)
    figures = score_subsets(rows, plan.subsets, rule=rule)
    differences = diversity(rows)
    body: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "scored": _scored(predictions.folder, manifest),
        "studied": {
            **_studied(rows, plan, seed=asked.seed),
            "replicates": len(replicates.counts),
            "rule": rule.rule,
            "rule_note": rule_note,
            "same_members": rows.same_members(),
        },
        **study.as_json(),
        "worth": worth(rows, plan, figures, replicates=replicates, distances=differences.log_loss.distances),
        "curve": curves(rows, plan, figures, replicates=replicates),
        "diversity": _diversity(differences),
        "reliability": _reliability(rows),
        "slices": slice_sections(
            rows, replicates, best=study.best["name"], columns=asked.slices, by_part=manifest.metrics_by_part
        ),
        "grouped_auc": group_sections(rows, columns=asked.groups),
        "command": asked.command,
    }
    body = plain(body)
    return {"conclusion": conclusion(body), **body}


def study_rule(manifest: PredictionManifest) -> tuple[MergeRule, str]:
    """The rule by which subsets are merged, and why it is that one."""
    name, members = manifest.merge["rule"], manifest.members
    if name not in RULES:
        note = f"{name} was fitted for all members together, so subsets are merged by the mean logit"
        return MergeRule.fixed("mean_logit", members=members), note
    sharpness = {"sharpness": manifest.merge["sharpness"]} if "sharpness" in manifest.merge else {}
    calibrated = manifest.merge.get("calibration") is not None
    note = "the rule of the predictions" + (", without its calibration" if calibrated else "")
    return MergeRule(rule=name, members=members, **sharpness), note


def _scored(folder: str, manifest: PredictionManifest) -> dict[str, Any]:
    row_hash = sum(int(file.row_hash, 16) for file in manifest.files) % (1 << 64)
    return {
        "folder": folder,
        "rows": manifest.num_rows,
        "files": len(manifest.files),
        "row_hash": f"{row_hash:016x}",
        "label_rate": sum(file.label_sum or 0 for file in manifest.files) / manifest.num_rows,
        "parts": [{"name": name, "rows": rows} for name, rows in manifest.parts.items()],
        "members": manifest.members,
        "merge": manifest.merge,
        "checkpoints": manifest.checkpoints and [vars(one) for one in manifest.checkpoints],
        "data": manifest.data,
        "settings": manifest.settings,
        "trained_on": trained_on(manifest, parts=manifest.parts),
    }


def _studied(rows: StudyRows, plan: SubsetPlan, *, seed: int) -> dict[str, Any]:
    return {
        "rows": rows.num_rows,
        "is_sample": rows.is_sample,
        "block_rows": rows.block_rows,
        "blocks": len(rows.block_starts),
        "seed": seed,
        "confidence": CONFIDENCE,
        "subsets": len(plan.subsets),
        "all_subsets": plan.is_whole,
        "circles": None if plan.circles is None else len(plan.circles),
    }


def _diversity(found: Diversity) -> dict[str, Any]:
    parts = {
        name: {**vars(one), "members_mean": one.members_mean, "ambiguity": one.ambiguity}
        for name, one in (("log_loss", found.log_loss), ("squared_error", found.squared_error))
    }
    return {**vars(found), **parts}


def _reliability(rows: StudyRows) -> list[dict[str, Any]]:
    names = [*rows.members, MERGED]
    return [
        {"name": name, "bins": reliability_curve(rows.labels, read_column(rows, name).probabilities)} for name in names
    ]
