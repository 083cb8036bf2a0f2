"""The chart of quality over the number of merged columns, with fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from trainer.benchmark.page.look import Mark, draw_points, new_figure, room, tidy
from trainer.benchmark.page.size_fits import SizeFit
from trainer.benchmark.report import Report

_TICKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_MOST_LIMITS = 4  # more would lie over each other; the table has them
_BEYOND = 2.0  # how far past the largest size a fit is drawn


def drawn_strategies(report: Report) -> list[str]:
    """Those with a curve: two sizes or more."""
    return [name for name in report.benchmark.strategies if len(report.of(name)) > 1]


def curve_chart(report: Report, *, marks: Mapping[str, Mark], fits: Sequence[SizeFit]) -> Figure:
    """AUC and log loss over the number of columns, a curve for each strategy that has several sizes."""
    names = drawn_strategies(report)
    rows = -(-len(names) // 2)
    figure = new_figure(10.0, 4.6 + 0.22 * rows)
    panels = figure.subplots(1, 2)
    for axes, metric, title in zip(
        panels, ("auc", "log_loss_nats"), ("AUC (higher is better)", "log loss, nats (lower is better)"), strict=True
    ):
        _panel(axes, report, names=names, metric=metric, marks=marks, fits=fits)
        axes.set(title=title, xlabel="number of merged predictions, K")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _panel(
    axes: Any,
    report: Report,
    *,
    names: Sequence[str],
    metric: str,
    marks: Mapping[str, Mark],
    fits: Sequence[SizeFit],
) -> None:
    tidy(axes)
    values, bars = [], []
    for name in names:
        points, mark = report.of(name), marks[name]
        intervals = [point.interval(metric) for point in points]
        title = report.benchmark.strategies[name].title
        draw_points(axes, [point.size for point in points], intervals, mark=mark, label=title)
        values += [one.value for one in intervals]
        bars += intervals
        fit = next((fit for fit in fits if fit.strategy == name and fit.metric == metric), None)
        if fit is not None:
            values += _fit_line(axes, fit, colour=mark.colour, said=len(fits) <= 2 * _MOST_LIMITS)
    largest = max(point.size for name in names for point in report.of(name))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if tick <= largest * _BEYOND]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.get_major_formatter().set_useOffset(False)
    axes.set_ylim(*room(values, bars))


def _fit_line(axes: Any, fit: SizeFit, *, colour: str, said: bool) -> list[float]:
    """Draws the fit and, where it tells one, its limit if that is to be said; gives the values that are to be seen."""
    sizes = np.geomspace(fit.sizes[0], fit.sizes[-1] * _BEYOND, 40)
    fitted = [fit.curve.at(float(size)) for size in sizes]
    axes.plot(sizes, fitted, color=colour, linewidth=0.9, alpha=0.6, dashes=(2, 2))
    if said and fit.tells_limit:
        shown = f"limit {fit.curve.limit:.4f}"
        axes.annotate(
            shown,
            (sizes[-1], fitted[-1]),
            textcoords="offset points",
            xytext=(0, 5 if fit.metric == "auc" else -11),
            ha="right",
            fontsize=8,
            color=colour,
        )
        return [fitted[-1]]
    return []
