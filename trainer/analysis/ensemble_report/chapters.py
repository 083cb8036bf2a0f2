"""The chapters of the page: each takes the report's plain values and gives a section of HTML, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from modules.merge import MERGED
from trainer.analysis.ensemble_report import charts
from trainer.analysis.ensemble_report.slices import LEAST_BLOCKS, LEAST_OF_CLASS, LEAST_ROWS
from trainer.analysis.ensemble_report.terminal import shown_figures
from trainer.analysis.ensemble_report.words import (
    between,
    bounds_of_slice,
    called,
    clear_of_all,
    curve_told,
    glossary_of,
    is_clear,
    multiplicity,
    number,
    rows_studied,
    share,
    subsets_studied,
)

Figures = Mapping[str, Any]


def scored(report: Figures) -> str:
    """What was scored, and what proves that it is complete."""
    what = report["scored"]
    parts = ", ".join(f"{part['name']} ({part['rows']:,} rows)" for part in what["parts"])
    checkpoints = "; ".join(
        f"{one['label'] + ' = ' if one['label'] else ''}{one['folder']}, step {one['step']:,}"
        for one in what["checkpoints"]
    )
    files = f"{what['files']:,} file" + "s" * (what["files"] != 1)
    settings = ", ".join(f"{key} {value}" for key, value in what["settings"].items())
    entries = [
        ("Parts", parts),
        (
            "Rows",
            f"{what['rows']:,} in {files}, label rate {share(what['label_rate'], 3)}",
        ),
        ("Completeness", f"hash of all row ids {what['row_hash']}; tools/verify_predictions.py checks every file"),
        ("Members", ", ".join(what["members"])),
        ("Merged by", what["merge"]["rule"]),
        ("Checkpoints", checkpoints),
        ("Data", ", ".join(f"{key} {value}" for key, value in what["data"].items() if value)),
        ("Settings", settings),
        ("Rows studied", rows_studied(report)),
    ]
    told = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in entries if value)
    return f"<section><h2>What was scored</h2><dl>{told}</dl></section>"


def figures(report: Figures) -> str:
    """Each column's figures, and its difference to merged."""
    members = [column for column in report["columns"] if column["is_member"]]
    ordered = sorted(members, key=lambda column: shown_figures(column)["log_loss_nats"] or 0.0)
    clear, is_sample = clear_of_all(report), report["studied"]["is_sample"]
    rows = []
    for column in [column for column in report["columns"] if not column["is_member"]] + ordered:
        of, minus = shown_figures(column), column["minus_merged"]
        cells = []
        for figure, paired in (("log_loss_nats", "log_loss_nats"), ("auc", "auc_delong")):
            studied = column["studied"][figure]
            cells += [number(of[figure]), _with_interval(studied)] if is_sample else [_with_interval(studied)]
            if len(members) > 1:
                cells.append("–" if minus is None else _with_interval(minus[paired], signed=True))
        cells += [number(of["ne"]), number(of["brier"]), number(of["calibration"], 4)]
        name = called(report, column["name"]) + ("\u00a0*" if column["name"] in clear else "")
        rows.append((name, cells, column["name"] == MERGED))
    heads = ["Column"]
    for title, paired in (("Log loss", ""), ("AUC", " (DeLong)")):
        heads += [title, f"{title}, rows studied"] if is_sample else [title]
        heads += [f"{title} − merged{paired}"] * (len(members) > 1)
    heads += ["NE", "Brier", "Calibration"]
    body = [_table(heads, rows)]
    if len(members) > 1:
        body.append(f"<p>{escape(multiplicity(report))}</p>")
        body.append(
            _charts(
                ("Log loss: member minus merged (right of 0: worse)", _against_merged(ordered, "log_loss_nats")),
                ("AUC: member minus merged (left of 0: worse)", _against_merged(ordered, "auc_delong")),
            )
        )
    whole = "Figures of all rows" if report["columns"][0]["all_rows"] else "Figures of the rows studied"
    text = f"{whole}. Small print: 95\u00a0% intervals by the block bootstrap over the rows studied, or by DeLong."
    return _section("Figures", text, *body)


def _against_merged(members: Iterable[Figures], figure: str) -> str:
    marks = []
    for column in members:
        interval = column["minus_merged"][figure]
        marks.append(charts.Mark(label=column["name"], **_three(interval), is_loud=is_clear(interval)))
    return charts.intervals(marks, name=f"{figure}-minus-merged")


def worth(report: Figures) -> str:
    """What each member adds."""
    members = sorted(report["worth"]["members"], key=lambda one: -one["shapley"]["log_loss_nats"]["value"])
    if len(members) == 1:
        return ""
    rows = []
    for one in members:
        leaving, shapley = one["leave_one_out"], one["shapley"]
        cells = [
            _with_interval(leaving["log_loss_nats"], signed=True),
            number(leaving["ne"]["value"], signed=True),
            number(leaving["auc"]["value"], signed=True),
            _with_interval(shapley["log_loss_nats"]),
            number(shapley["auc"]["value"]),
        ]
        rows.append((one["name"], [*cells, number(one["distance_nats"])], False))
    heads = ["Member", "Lost without it: log loss", "NE", "AUC", "Shapley: log loss", "Shapley: AUC"]
    heads.append("Distance from the merge")
    none, everyone = (report["worth"][key]["log_loss_nats"] for key in ("none", "all"))
    text = (
        f"{subsets_studied(report)} Shapley values share out the whole way from the base rate alone"
        f" ({number(none)} nats) to all members ({number(everyone)} nats); what a member alone adds at the end is what"
        " is lost without it. Below zero: the merge would be better without that member on these rows."
    )
    leaving_chart = charts.intervals([_gain(one, "leave_one_out") for one in members], name="leave-one-out")
    shapley_chart = charts.intervals([_gain(one, "shapley") for one in members], name="shapley", signed=False)
    return _section(
        "The worth of each member",
        text,
        _table(heads, rows),
        _charts(
            ("Log loss that is lost without the member (nats)", leaving_chart),
            ("Shapley value (nats of log loss)", shapley_chart),
        ),
    )


def _gain(one: Figures, kind: str) -> charts.Mark:
    interval = one[kind]["log_loss_nats"]
    return charts.Mark(label=one["name"], **_three(interval), is_loud=is_clear(interval))


def curve(report: Figures) -> str:
    """Figures over the number of members."""
    if len(report["scored"]["members"]) == 1:
        return ""
    losses, aucs, relative = (report["curve"][name] for name in ("log_loss_nats", "auc", "ne"))
    rows = []
    for loss, ne, auc in zip(losses["points"], relative["points"], aucs["points"], strict=True):
        best = ", ".join(loss["best"]) if len(loss["best"]) <= 4 else f"{len(loss['best'])} members"
        subsets = f"{loss['num_subsets']:,}" + ("" if loss["is_whole"] else " drawn")
        cells = [subsets, number(loss["mean"]), number(loss["spread"]), number(loss["lowest"]), number(ne["mean"])]
        rows.append((str(loss["size"]), [*cells, number(auc["mean"]), number(auc["highest"]), best], False))
    heads = ["Members", "Subsets", "Mean log loss", "spread", "lowest", "Mean NE", "Mean AUC", "highest", "Lowest with"]
    key = _legend(
        ("background:var(--one)", "dot", "mean over subsets"),
        ("background:var(--two)", "", "mean ± spread"),
        ("background:var(--three)", "", "all subsets"),
        ("border:1.5px solid var(--good)", "dot", "best subset"),
        *([("border-color:var(--bad)", "rule", "fit")] if losses["fit"] else []),
        *([("background:var(--track)", "", "extrapolated, dashed; dotted: the limit")] if losses["fit"] else []),
    )
    return _section(
        "How figures grow with the number of members",
        curve_told(report),
        _charts(
            ("Log loss (nats)", charts.size_curve(losses, name="curve-log-loss")),
            ("AUC", charts.size_curve(aucs, name="curve-auc")),
        ),
        key,
        _table(heads, rows),
    )


def diversity(report: Figures) -> str:
    """How far members differ, and what that is worth."""
    names = report["scored"]["members"]
    if len(names) == 1:
        return ""
    found = report["diversity"]
    loss, square = found["log_loss"], found["squared_error"]
    text = (
        f"Log loss of the mean logit {number(loss['merged'])} = the members' mean {number(loss['members_mean'])} −"
        f" ambiguity {number(loss['ambiguity'])} nats. Squared error of the mean probability"
        f" {number(square['merged'])} = {number(square['members_mean'])} − {number(square['ambiguity'])}. Members whose"
        " predictions are alike leave nothing to take away. On average over all pairs two members' probabilities are"
        f" {number(_mean_apart(found['disagreement']), 4)} apart, at a mean probability of"
        f" {number(found['mean_probability'], 4)}."
    )
    tables = [
        ("Correlation of logits", charts.matrix(names, found["logit_correlation"], name="correlation", digits=3)),
        (
            "Disagreement: mean |difference of probabilities|",
            charts.matrix(names, found["disagreement"], name="disagreement", digits=3),
        ),
    ]
    drawn = "".join(f'<div><h3>{escape(title)}</h3><div class="wide">{chart}</div></div>' for title, chart in tables)
    return _section("How members differ", text, f'<div class="charts{" stacked" * (len(names) > 12)}">{drawn}</div>')


def _mean_apart(disagreement: Sequence[Sequence[float]]) -> float:
    pairs = len(disagreement) * (len(disagreement) - 1)
    return sum(map(sum, disagreement)) / pairs


def reliability(report: Figures) -> str:
    """Predicted beside observed rates."""
    lines = [
        charts.Line(
            name=one["name"],
            **{key: tuple(each[key] for each in one["bins"]) for key in ("predicted", "observed", "low", "high")},
            is_merged=one["name"] == MERGED,
        )
        for one in report["reliability"]
    ]
    key = _legend(
        ("background:var(--one)", "dot", "merged, with Wilson's 95 % interval"),
        ("border-color:var(--soft)", "rule", "members"),
        ("border-color:var(--soft);border-top-style:dotted", "rule", "as predicted"),
    )
    return _section(
        "Calibration",
        "Rows in bins of about equally many, by ascending prediction; axes of rates give small ones more room.",
        _charts(
            ("Observed over predicted rate", charts.reliability(lines, name="reliability")),
            ("Observed as a multiple of predicted", charts.reliability_ratio(lines, name="reliability-ratio")),
        ),
        key,
    )


def slices(report: Figures) -> str:
    """Merged and the best single member on each slice."""
    best, sections = report["best"]["name"], []
    alone = len(report["scored"]["members"]) == 1
    few = (
        f"Slices of fewer than {LEAST_ROWS} rows, {LEAST_OF_CLASS} of each class or {LEAST_BLOCKS} blocks of"
        " neighbouring rows have no interval."
    )
    for part in report["slices"]:
        rows = []
        for one in part["values"]:
            cells = [f"{one['num_rows']:,}", share(one["label_rate"])]
            for figure, digits in (("log_loss_nats", 5), ("auc", 5), ("calibration", 4)):
                cells += [number(one["merged"][figure], digits)] + [number(one["best"][figure], digits)] * (not alone)
            rows.append((one["value"], cells + [_of_slice(one)] * (not alone), False))
        heads = ["Value", "Rows", "Label rate"]
        for title in ("Log loss", "AUC", "Calibration"):
            heads += [f"{title}: merged"] + [best] * (not alone)
        body = [_table(heads + ["Log loss: merged − best"] * (not alone), rows)]
        if not alone:
            marks = [
                charts.Mark(label=one["value"], **_three(one["difference"]), is_loud=is_clear(one["difference"]))
                for one in part["values"]
                if not one["is_too_few"]  # one row would set the scale of all
            ]
            title = f"Log loss: merged minus {best} (left of 0: merged is ahead)"
            body.append(_charts((title, charts.intervals(marks, name=f"slices-{part['column']}"))))
        source = "the figures of all rows" if part["figures_of"] == "all rows" else "figures of the rows studied"
        what = "part" if part["is_part"] else f"column {part['column']}"
        sections.append(_section(f"By {what}", f"By {what}, {source}; intervals are one by one. {few}", *body))
    return "".join(sections)


def _of_slice(one: Figures) -> str:
    return f"{number(one['difference']['value'], signed=True)}{_SMALL_PRINT}{bounds_of_slice(one)}"


def grouped(report: Figures) -> str:
    """AUC within groups."""
    sections = []
    for group in report["grouped_auc"]:
        rows = [(name, [number(value)], name == MERGED) for name, value in group["gauc"].items()]
        text = (
            f"The mean AUC within the values of {group['column']}, weighted by rows: {group['mixed_groups']:,} of"
            f" {group['groups']:,} values have rows of both classes, {group['mixed_rows']:,} rows in all."
        )
        sections.append(_section(f"AUC within groups of {group['column']}", text, _table(["Column", "GAUC"], rows)))
    return "".join(sections)


def glossary(report: Figures) -> str:
    """What the words mean."""
    told = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in glossary_of(report))
    return f"<section><h2>How to read this</h2><dl>{told}</dl></section>"


def command(report: Figures) -> str:
    """How to make the page again."""
    if not report["command"]:
        return ""
    return f"<section><h2>How to make it again</h2><code>{escape(report['command'])}</code></section>"


def _section(title: str, text: str, *body: str) -> str:
    told = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in text.splitlines())
    return f"<section><h2>{escape(title)}</h2>{told}{''.join(body)}</section>"


def _charts(*titled: tuple[str, str]) -> str:
    drawn = "".join(f"<div><h3>{escape(title)}</h3>{chart}</div>" for title, chart in titled)
    return f'<div class="charts">{drawn}</div>'


def _legend(*entries: tuple[str, str, str]) -> str:
    told = "".join(
        f'<span><i class="{kind}" style="{style}"></i>{escape(text)}</span>' for style, kind, text in entries
    )
    return f'<div class="legend">{told}</div>'


def _table(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str], bool]]) -> str:
    """Cells are text, or a text and its small print (`_with_interval`)."""
    top = "".join(f"<th{_NUMBER if place else ''}>{escape(head)}</th>" for place, head in enumerate(heads))
    body = []
    for name, cells, is_strong in rows:
        told = "".join(f"<td{_NUMBER}>{_cell(cell)}</td>" for cell in cells)
        mark = ' class="strong"' if is_strong else ""
        body.append(f'<tr{mark}><th scope="row">{escape(name)}</th>{told}</tr>')
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


_NUMBER = ' class="number"'
_SMALL_PRINT = "\n"


def _with_interval(interval: Figures, *, signed: bool = False) -> str:
    return f"{number(interval['value'], signed=signed)}{_SMALL_PRINT}{between(interval)}"


def _cell(text: str) -> str:
    large, _, small = text.partition(_SMALL_PRINT)
    return escape(large) + (f" <small>{escape(small)}</small>" if small else "")


def _three(interval: Figures) -> dict[str, float | None]:
    return {key: interval.get(key) for key in ("value", "low", "high")}
