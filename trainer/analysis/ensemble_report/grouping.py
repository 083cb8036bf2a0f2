"""The report's chapters on slices: by part and by column, and AUC within groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modules.merge import MERGED
from trainer.analysis.ensemble_report.columns import read_column
from trainer.analysis.ensemble_report.slices import Grouping, by_value, slices, too_few
from trainer.analysis.worth.block_bootstrap import Replicates
from trainer.analysis.worth.study_rows import StudyRows
from trainer.metrics.grouped import GroupedSource, grouped_auc
from trainer.row_progress import RowProgress


def slice_sections(
    rows: StudyRows,
    replicates: Replicates,
    *,
    best: str,
    columns: Sequence[str],
    by_part: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Slices by part, then by each column; parts of a sampled folder take the manifest's figures of all their rows."""
    merged, single = (read_column(rows, name) for name in (MERGED, best))
    found = []
    groupings = {"part": Grouping(codes=rows.part, names=rows.parts)}
    groupings |= {column: by_value(rows.columns[column]) for column in columns}
    for column, grouping in groupings.items():
        values = [vars(one) for one in slices(rows, grouping, replicates, merged=merged, best=single)]
        is_part, of_all = column == "part", False
        if is_part and rows.is_sample and all(_has(by_part, one["value"], best) for one in values):
            values, of_all = [_of_all_rows(one, by_part[one["value"]], best) for one in values], True
        found.append(
            {
                "column": column,
                "is_part": is_part,
                "figures_of": "all rows" if of_all or not rows.is_sample else "studied rows",
                "values": values,
            }
        )
    return found


def _has(by_part: Mapping[str, Any], part: str, best: str) -> bool:
    return MERGED in by_part.get(part, {}) and best in by_part[part]


def _of_all_rows(one: dict[str, Any], figures: Mapping[str, Any], best: str) -> dict[str, Any]:
    merged = figures[MERGED]
    whole = {"num_rows": merged["num_rows"], "label_rate": merged["label_rate"]}
    no_auc = {"auc": None} if too_few(merged["num_rows"], merged["num_rows"] * merged["label_rate"]) else {}
    return {**one, **whole, "merged": {**merged, **no_auc}, "best": {**figures[best], **no_auc}}


def group_sections(rows: StudyRows, *, columns: Sequence[str]) -> list[dict[str, Any]]:
    """AUC within the groups of each column, averaged with the groups' rows as weights, of every prediction column.

    Raises:
        DataError: a column's values are neither whole numbers nor strings.
    """
    found = []
    progress = RowProgress("groups", rows.num_rows * len(columns) * (len(rows.members) + 1))
    scores = {**dict(zip(rows.members, rows.logits.T, strict=True)), MERGED: rows.merged_logits}
    for column in columns:
        of_column: dict[str, Any] = {}
        for name, values in scores.items():
            of_column[name] = grouped_auc(_source(rows, values, rows.columns[column]))
            progress.add(rows.num_rows)
        merged = of_column[MERGED]
        found.append(
            {
                "column": column,
                "groups": merged.num_groups + merged.num_groups_left_out,
                "mixed_groups": merged.num_groups,
                "mixed_rows": rows.num_rows - merged.num_rows_left_out,
                "gauc": {name: one.weighted for name, one in of_column.items()},
            }
        )
    return found


def _source(rows: StudyRows, scores: NDArray[np.float32], values: NDArray) -> GroupedSource:
    return lambda: iter([(rows.labels, scores, values)])
