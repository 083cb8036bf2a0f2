"""The chart for the wall: quality against inference cost, every strategy at every size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from trainer.benchmark.page.look import GREY, Mark, apart, draw_points, new_figure, room, significant, tidy, without_far
from trainer.benchmark.report import Report

_PANELS = (("log_loss_nats", "log loss, nats\n(lower is better)"), ("auc", "AUC\n(higher is better)"))
_LABEL_INCHES = 0.17


def wall_chart(report: Report, *, marks: Mapping[str, Mark]) -> Figure:
    """Log loss and AUC against multiply-adds a row; strategies are named on the right, beside their last point.

    What is so far off that the others would be a line (weights of independent trainings averaged) is off the panels.
    """
    names = [name for name in report.benchmark.strategies if report.of(name)]
    upper = max(4.2, 1.0 + _LABEL_INCHES * len(names))
    figure = new_figure(10.5, upper + 3.4)
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[upper, 2.6])
    for axes, (metric, title) in zip(panels, _PANELS, strict=True):
        tidy(axes)
        axes.set_ylabel(title)
        _level(axes, "one model", report.single.interval(metric).value, named=metric == "auc")  # above, the names do
        for baseline, found in report.baselines.items():
            _level(axes, baseline, getattr(found, metric), named=True)
        for name in names:
            points = report.of(name)
            costs = [point.cost.multiply_adds for point in points]
            draw_points(axes, costs, [point.interval(metric) for point in points], mark=marks[name], label=name)
        intervals = [point.interval(metric) for point in report.points]
        levels = [getattr(found, metric) for found in report.baselines.values()]
        shown = without_far([*levels, *(one.value for one in intervals)])
        axes.set_ylim(*room(shown, [one for one in intervals if shown[0] <= one.value <= shown[-1]]))
        axes.yaxis.get_major_formatter().set_useOffset(False)
    panels[1].set_xscale("log")
    _cost_axis(panels[1], [point.cost.multiply_adds for point in report.points])
    panels[1].set_xlabel("multiply-adds of the forward pass, per row (log scale)")
    _names(panels[0], report, names=names, marks=marks)
    _legend(figure, report, marks=marks)
    groups = report.benchmark.groups
    bars = f"bars: 95 % interval over {groups} groups of trainings" if groups > 1 else "one group of trainings, no bars"
    figure.suptitle(f"Quality against inference cost, on {report.benchmark.data.judged}; {bars}", fontsize=11)
    return figure


def _level(axes: Any, name: str, value: float, *, named: bool) -> None:
    """A line across at the value, of what has no cost on this axis."""
    axes.axhline(value, color=GREY, linewidth=1.0, dashes=(4, 3), zorder=1)
    if not named:
        return
    axes.annotate(
        name,
        (0.0, value),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(3, 3),
        fontsize=8,
        color=GREY,
    )


def _cost_axis(axes: Any, costs: list[int]) -> None:
    low, high = min(costs), max(costs)
    axes.set_xlim(low / 1.25, max(high, low * 2) * 1.25)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _names(axes: Any, report: Report, *, names: list[str], marks: Mapping[str, Mark]) -> None:
    """Each strategy's title right of the panel, at the height of its last point, with a thin line to it.

    A point that is off the panel has its figure beside the title, and the line ends at the edge.
    """
    low, high = axes.get_ylim()
    values = [report.of(name)[-1].interval("log_loss_nats").value for name in names]
    costs = [report.of(name)[-1].cost.multiply_adds for name in names]
    ends = [(cost, min(max(value, low), high)) for cost, value in zip(costs, values, strict=True)]
    least = 1.15 * (high - low) * _LABEL_INCHES / max(4.2, 1.0 + _LABEL_INCHES * len(names))
    places = apart([value for _, value in ends], least=least, low=low, high=high)
    for name, value, end, place in zip(names, values, ends, places, strict=True):
        size = report.of(name)[-1].size
        title = report.benchmark.strategies[name].title + (f", K = {size}" if size > 1 else "")
        axes.annotate(
            title if low <= value <= high else f"{title}: {value:.3f}, off the panel",
            end,
            xycoords="data",
            xytext=(1.03, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color=marks[name].colour,
            arrowprops={
                "arrowstyle": "-",
                "color": marks[name].colour,
                "linewidth": 0.5,
                "alpha": 0.6,
                "relpos": (0.0, 0.5),
                "shrinkA": 1.0,
            },
            annotation_clip=False,
        )


def _legend(figure: Figure, report: Report, *, marks: Mapping[str, Mark]) -> None:
    families: dict[str, Mark] = {}
    for name, strategy in report.benchmark.strategies.items():
        families.setdefault(strategy.family, marks[name])
    handles = [
        Line2D([], [], color=mark.colour, marker=mark.marker, markersize=6, linewidth=1.3, label=family)
        for family, mark in families.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False, fontsize=9)
