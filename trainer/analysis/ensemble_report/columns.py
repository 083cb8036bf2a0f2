"""The prediction columns of a report: figures with intervals, and each against merged and against the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import DataError
from modules.merge import MERGED
from trainer.analysis.ensemble_report.slices import Column
from trainer.analysis.intervals import auc_components
from trainer.analysis.worth.block_bootstrap import Drawn, Replicates, figures_of_column, simultaneous_half_widths
from trainer.analysis.worth.study_rows import StudyRows
from trainer.metrics.exact import LogitFigures
from trainer.row_progress import RowProgress

_SAME = 1e-6  # how far figures of the manifest may be from those of its rows


@dataclass(frozen=True, kw_only=True)
class ColumnStudy:
    """All columns, judged on the same rows."""

    columns: list[dict[str, Any]]
    best: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """`columns` and `best`."""
        return {"columns": self.columns, "best": self.best}

    def refuse_other_figures(self, folder: str) -> None:
        """Refuses figures of the manifest that are not those of the rows, where all rows were studied.

        Raises:
            DataError: names the column.
        """
        for column in self.columns:
            told = column["all_rows"] or {}
            for figure, called in (("log_loss_nats", "log loss"), ("auc", "AUC")):
                value, found = told.get(figure), column["studied"][figure].value
                room = _SAME * max(1.0, abs(found))
                if figure == "auc" and told.get("auc_lower") is not None:  # the middle of a bracket
                    room += told["auc_upper"] - told["auc_lower"]
                if value is not None and not abs(value - found) <= room:
                    raise DataError(
                        f"{folder!r}: by its manifest {column['name']} has {called} {value:.6f}, by its rows"
                        f" {found:.6f}; one of them was changed, see tools/verify_predictions.py, or score again"
                    )


def read_column(rows: StudyRows, name: str) -> Column:
    """Logits of a member or of merged, and their probabilities and losses."""
    logits = rows.merged_logits if name == MERGED else rows.logits[:, rows.members.index(name)]
    found = LogitFigures.of(rows.labels, logits)
    return Column(name=name, logits=logits, probabilities=found.probability, losses=found.log_loss_nats)


def study_columns(rows: StudyRows, replicates: Replicates, *, of_all_rows: Mapping[str, Any]) -> ColumnStudy:
    """Judges every column; progress goes to stderr.

    Args:
        rows: The rows.
        replicates: The drawn blocks.
        of_all_rows: Column -> the manifest's figures.
    """
    names = [*rows.members, MERGED]
    ranks_of_merged = auc_components(rows.labels, rows.merged_logits)
    progress = RowProgress("intervals", rows.num_rows * len(names))
    drawn: dict[str, Mapping[str, Drawn]] = {}
    delong: dict[str, dict[str, Any]] = {}
    for name in names:
        column = read_column(rows, name)
        drawn[name] = figures_of_column(
            rows, replicates, losses=column.losses, probabilities=column.probabilities, scores=column.logits
        )
        ranks = auc_components(rows.labels, column.logits)
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
    ranks_of_best = auc_components(rows.labels, read_column(rows, best).logits)
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
