"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from trainer.analysis.ensemble_report.words import (
    between,
    bounds_of_slice,
    called,
    clear_of_all,
    number,
    rows_studied,
    share,
    subsets_studied,
)

Figures = Mapping[str, Any]


def show(report: Figures, *, console: Console) -> None:
    """Prints the conclusion and the tables."""
    lines = [Text(" ".join(report["conclusion"]["sentences"]), style="bold"), Text(rows_studied(report)), Text("")]
    tables = [_columns(report), _worth(report), _curve(report), *_slices(report), *_groups(report)]
    console.print(Group(*lines, *(table for table in tables if table.row_count)))


def _table(title: str, *heads: str) -> Table:
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.min_width = 100  # a title is not folded to the width of a narrow table
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left", no_wrap=index > 0)
    return table


def _columns(report: Figures) -> Table:
    table = _table(
        "Figures",
        *("column", "log loss", "NE", "AUC", "calibration", "log loss − merged", "95 % interval", "AUC − merged"),
    )
    clear = clear_of_all(report)
    for column in report["columns"]:
        figures, minus = shown_figures(column), column["minus_merged"]
        name = called(report, column["name"]) + (" *" if column["name"] in clear else "")
        cells = [number(figures[key], digits) for key, digits in _FIGURES]
        if minus is None:
            cells += ["–", "–", "–"]
        else:
            loss = minus["log_loss_nats"]
            cells += [number(loss["value"], signed=True), between(loss), number(minus["auc"]["value"], signed=True)]
        table.add_row(Text(name), *cells)
    if clear:
        table.caption = "* behind merged in log loss, all comparisons taken at once"
        table.caption_justify = "left"
    return table


_FIGURES = (("log_loss_nats", 5), ("ne", 5), ("auc", 5), ("calibration", 4))


def shown_figures(column: Figures) -> dict[str, float | None]:
    """The column's figures over all rows where the manifest has them, else over the rows studied."""
    studied = {name: interval["value"] for name, interval in column["studied"].items()}
    return studied | {name: value for name, value in (column["all_rows"] or {}).items() if value is not None}


def _worth(report: Figures) -> Table:
    table = _table(
        f"Worth in nats of log loss. {subsets_studied(report)}",
        *("member", "lost without it", "95 % interval", "Shapley", "95 % interval", "AUC without it", "Shapley, AUC"),
    )
    for one in report["worth"]["members"]:
        leaving, shapley = one["leave_one_out"], one["shapley"]
        table.add_row(
            Text(one["name"]),
            number(leaving["log_loss_nats"]["value"], signed=True),
            between(leaving["log_loss_nats"]),
            number(shapley["log_loss_nats"]["value"]),
            between(shapley["log_loss_nats"]),
            number(-leaving["auc"]["value"], signed=True),
            number(shapley["auc"]["value"]),
        )
    return table


def _curve(report: Figures) -> Table:
    table = _table("By number of members", "members", "subsets", "mean log loss", "lowest", "mean AUC", "best subset")
    losses, aucs = report["curve"]["log_loss_nats"]["points"], report["curve"]["auc"]["points"]
    for loss, auc in zip(losses, aucs, strict=True):
        best = ", ".join(loss["best"]) if len(loss["best"]) <= 6 else f"{len(loss['best'])} members"
        subsets = f"{loss['num_subsets']:,}" + ("" if loss["is_whole"] else " drawn")
        table.add_row(
            str(loss["size"]), subsets, number(loss["mean"]), number(loss["lowest"]), number(auc["mean"]), Text(best)
        )
    fit = report["curve"]["log_loss_nats"]["fit"]
    if fit:
        table.add_row(f"{fit['size']} *", "", number(fit["at"]["value"]), "", "", "")
        table.caption = (
            f"* extrapolated: {number(fit['limit']['value'])} + {number(fit['scale'])} / k^{fit['exponent']:.2f},"
            f" residual {number(fit['residual'], 7)}"
        )
        table.caption_justify = "left"
    return table


def _slices(report: Figures) -> list[Table]:
    tables = []
    for part in report["slices"]:
        table = _table(
            f"By {part['column']} ({part['figures_of']}); best single member: {report['best']['name']}",
            *(
                "value",
                "rows",
                "label rate",
                "log loss",
                "of the best",
                "difference",
                "95 % interval",
                "AUC",
                "calibration",
            ),
        )
        for one in part["values"]:
            table.add_row(
                Text(one["value"]),
                f"{one['num_rows']:,}",
                share(one["label_rate"]),
                number(one["merged"]["log_loss_nats"]),
                number(one["best"]["log_loss_nats"]),
                number(one["difference"]["value"], signed=True),
                bounds_of_slice(one),
                number(one["merged"]["auc"]),
                number(one["merged"]["calibration"], 4),
            )
        tables.append(table)
    return tables


def _groups(report: Figures) -> list[Table]:
    tables = []
    for group in report["grouped_auc"]:
        title = (
            f"AUC within the groups of {group['column']} (GAUC): {group['mixed_groups']:,} of {group['groups']:,}"
            f" groups have both classes, {group['mixed_rows']:,} rows"
        )
        table = _table(title, "column", "GAUC")
        for name, value in group["gauc"].items():
            table.add_row(Text(name), number(value))
        tables.append(table)
    return tables
