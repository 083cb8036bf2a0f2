"""Merged tables: every strategy at its sizes, with gains over one model and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.benchmark.page.markdown import (
    DIGITS,
    count,
    folded,
    gain,
    megabytes,
    plain,
    rate,
    sections,
    table,
    with_half_width,
)
from trainer.benchmark.points import METRICS, Point
from trainer.benchmark.report import Report
from trainer.benchmark.speed import strategy_rate

_FIGURES = ["AUC", "log loss", "NE", "calibration", "AUC − one model", "log loss − one model"]
_COSTS = ["parameters", "tables, MB", "multiply-adds", "training"]


def merged_section(report: Report) -> str:
    """All strategies at their largest size, the lowest log loss first; all sizes of each folded."""
    last = [points[-1] for name in report.benchmark.strategies if (points := report.of(name))]
    last.sort(key=lambda point: point.interval("log_loss_nats").value)
    several = [name for name in report.benchmark.strategies if len(report.of(name)) > 1]
    note = (
        "Each strategy at its largest size K, the lowest log loss first; means over groups of trainings,"
        " ± half the 95 % interval (Student's). *− one model*: the difference to"
        f" *{report.benchmark.strategies[report.benchmark.single].title}*, group by group; bold where the interval"
        " excludes zero. Parameters and tables that columns share count once; 4 bytes a parameter. Training: the"
        " processor seconds of all trainings that are needed, in those of one model."
    )
    if report.speeds:
        note += " Rows/s: the columns scored one after the other by one process, from their measured speeds."
    return sections(
        note,
        _table(report, last, first=("strategy", "K")),
        *(folded(_summary(report, name), _table(report, report.of(name), first=("K", "subsets"))) for name in several),
    )


def frontier_table(report: Report) -> str:
    """The points that no cheaper or equally dear one betters, by multiply-adds and log loss."""
    rows, lowest = [], float("inf")
    for point in sorted(report.points, key=lambda one: (one.cost.multiply_adds, one.interval("log_loss_nats").value)):
        loss = point.interval("log_loss_nats")
        if loss.value >= lowest:
            continue
        lowest = loss.value
        shown = [with_half_width(point.interval("auc"), 5), with_half_width(loss, 5)]
        title = report.benchmark.strategies[point.strategy].title
        rows.append([title, count(point.size), count(point.cost.multiply_adds), count(point.cost.parameters), *shown])
    return table(["strategy", "K", "multiply-adds", "parameters", "AUC", "log loss"], rows)


def _summary(report: Report, name: str) -> str:
    strategy, points = report.benchmark.strategies[name], report.of(name)
    rule = "" if strategy.rule == "mean_logit" else f" (merged by {strategy.rule.replace('_', ' ')})"
    return f"{strategy.title}: K = {', '.join(str(point.size) for point in points)}{rule}"


def _table(report: Report, points: Sequence[Point], *, first: tuple[str, str]) -> str:
    by_strategy = first[0] == "strategy"
    head = [*first, *_FIGURES, *_COSTS, *(["rows/s"] if report.speeds else [])]
    rows = []
    for point in points:
        title = report.benchmark.strategies[point.strategy].title
        start = [title, count(point.size)] if by_strategy else [count(point.size), count(point.num_subsets)]
        rows.append([*start, *_figures(report, point), *_costs(report, point)])
    return table(head, rows, words=1 if by_strategy else 0)


def _figures(report: Report, point: Point) -> list[str]:
    shown = [with_half_width(point.interval(metric), DIGITS[metric]) for metric in METRICS]
    if point.strategy == report.single.strategy and point.size == report.single.size:
        return [*shown, plain(None, 5), plain(None, 5)]
    return [*shown, *(gain(point.gain(report.single, metric), 5) for metric in ("auc", "log_loss_nats"))]


def _costs(report: Report, point: Point) -> list[str]:
    cost = point.cost
    alone = report.single.cost.train_seconds
    training = plain(cost.train_seconds / alone if alone and cost.train_seconds else None, 1)
    shown = [count(cost.parameters), megabytes(cost.table_bytes), count(cost.multiply_adds), training]
    return [*shown, rate(rows_per_second(report, point))] if report.speeds else shown


def rows_per_second(report: Report, point: Point) -> float | None:
    """Rows a second of a strategy at a size; None where speeds were not measured."""
    if not report.speeds:
        return None
    strategy = report.benchmark.strategies[point.strategy]
    return strategy_rate(report.results, strategy=strategy, size=point.size, of=report.speeds)
