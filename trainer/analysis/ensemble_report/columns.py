"""The prediction columns of a report: figures with intervals, and each against merged and against the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modules.merge import MERGED
from trainer.analysis.ensemble_report.slices import Column
from trainer.analysis.intervals import auc_components
from trainer.analysis.worth.block_bootstrap import Drawn, Replicates, figures_of_column, simultaneous_half_widths
from trainer.analysis.worth.study_rows import StudyRows
from trainer.metrics.exact import LogitFigures, log_losses
from trainer.row_progress import RowProgress


@dataclass(frozen=True, kw_only=True)
class ColumnStudy:
    """All columns, judged on the same rows."""

    columns: list[dict[str, Any]]
    best: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """`columns` and `best`."""
        return {"columns": self.columns, "best": self.best}


def read_column(rows: StudyRows, name: str) -> Column:
    """Probabilities and losses of a member, from its logits, or of merged, from its probabilities."""
    if name == MERGED:
        chances = rows.merged.astype(np.float64)
        return Column(name=name, probabilities=chances, losses=log_losses(rows.labels, chances))
    of_logits = LogitFigures.of(rows.labels, rows.logits[:, rows.members.index(name)])
    return Column(name=name, probabilities=of_logits.probability, losses=of_logits.log_loss_nats)


def study_columns(rows: StudyRows, replicates: Replicates, *, of_all_rows: Mapping[str, Any]) -> ColumnStudy:
    """Judges every column; progress goes to stderr.

    Args:
        rows: The rows.
        replicates: The drawn blocks.
        of_all_rows: Column -> the manifest's figures.
    """
    names = [*rows.members, MERGED]
    ranks_of_merged = auc_components(rows.labels, rows.merged)
    progress = RowProgress("intervals", rows.num_rows * len(names))
    drawn: dict[str, Mapping[str, Drawn]] = {}
    delong: dict[str, dict[str, Any]] = {}
    for name in names:
        column = read_column(rows, name)
        drawn[name] = figures_of_column(rows, replicates, losses=column.losses, probabilities=column.probabilities)
        ranks = auc_components(rows.labels, column.probabilities)
        delong[name] = {
            "of": ranks.estimate().interval(),
            "minus_merged": (ranks - ranks_of_merged).estimate().interval(),
        }
        progress.add(rows.num_rows)
    differences = {name: _minus(drawn[name], drawn[MERGED]) for name in rows.members}
    half_widths = simultaneous_half_widths([differences[name]["log_loss_nats"] for name in rows.members])
    columns = [
        {
            "name": name,
            "is_member": name != MERGED,
            "all_rows": of_all_rows.get(name),
            "studied": _intervals(drawn[name], delong[name]["of"]),
            "minus_merged": _intervals(differences[name], delong[name]["minus_merged"]) if name != MERGED else None,
            "simultaneous_half_width_nats": half_widths[names.index(name)] if name != MERGED else None,
        }
        for name in names
    ]
    best = min(rows.members, key=lambda name: _log_loss(of_all_rows.get(name), drawn[name]))
    ranks_of_best = auc_components(rows.labels, read_column(rows, best).probabilities)
    delong_best = (ranks_of_merged - ranks_of_best).estimate().interval()
    against = _intervals(_minus(drawn[MERGED], drawn[best]), delong_best)
    return ColumnStudy(columns=columns, best={"name": best, "merged_minus_best": against})


def _log_loss(of_all_rows: Mapping[str, Any] | None, studied: Mapping[str, Drawn]) -> float:
    told = (of_all_rows or {}).get("log_loss_nats")
    return studied["log_loss_nats"].value if told is None else float(told)


def _minus(one: Mapping[str, Drawn], other: Mapping[str, Drawn]) -> dict[str, Drawn]:
    return {name: drawn - other[name] for name, drawn in one.items()}


def _intervals(drawn: Mapping[str, Drawn], delong: Any) -> dict[str, Any]:
    return {name: one.interval() for name, one in drawn.items()} | {"auc_delong": delong}
