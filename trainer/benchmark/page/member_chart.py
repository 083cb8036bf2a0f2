"""The chart of single members beside what others report for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trainer.benchmark.page.look import half_widths, new_figure, room, tidy
from trainer.benchmark.page.singles import Single

OURS, THEIRS = "#2f6db3", "#c2571a"
# Members differ most near the best value, so that axes are stretched there: -ln(1 - AUC) and ln(log loss).
_STRETCH: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "auc": (lambda x: -np.log(np.maximum(1.0 - x, 1e-9)), lambda y: 1.0 - np.exp(-y)),
    "log_loss_nats": (lambda x: np.log(np.maximum(x, 1e-9)), np.exp),
}
_PANELS = (("auc", "AUC (higher is better)"), ("log_loss_nats", "log loss, nats (lower is better)"))


def member_chart(singles: Sequence[Single]) -> Figure:
    """AUC and log loss of each member, with 95 % intervals over groups, beside the published values."""
    figure = new_figure(10.0, 1.7 + 0.32 * len(singles))
    panels = figure.subplots(1, 2, sharey=True)
    places = list(range(len(singles)))[::-1]
    for axes, (metric, title) in zip(panels, _PANELS, strict=True):
        tidy(axes)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        values, bars = [], []
        for place, single in zip(places, singles, strict=True):
            ours = single.interval(metric)
            theirs = getattr(single.published, metric) if single.published else None
            axes.errorbar(
                ours.value, place, xerr=half_widths([ours]), fmt="o", color=OURS, capsize=3, markersize=5.5, zorder=3
            )
            values.append(ours.value)
            bars.append(ours)
            if theirs is not None:
                axes.plot([ours.value, theirs], [place, place], color="#bbbbbb", linewidth=1.0, zorder=1)
                axes.plot(theirs, place, "D", markerfacecolor="white", markeredgecolor=THEIRS, markersize=5.5, zorder=2)
                values.append(theirs)
        _stretched(axes, metric, ends=room(values, bars))
        axes.set_title(title, fontsize=11)
    panels[0].set_yticks(places, [single.member for single in singles])
    panels[0].set_ylim(-0.6, len(singles) - 0.4)
    handles = [Line2D([], [], color=OURS, marker="o", markersize=5.5, label="here, with 95 % interval over groups")]
    if any(single.published for single in singles):
        handles.append(
            Line2D([], [], linestyle="", marker="D", markerfacecolor="white", markeredgecolor=THEIRS, label="published")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _stretched(axes: Any, metric: str, *, ends: tuple[float, float]) -> None:
    """Sets the axis's scale, its ends, and round ticks that stay apart on it."""
    forward, back = _STRETCH[metric]
    low, high = max(ends[0], 1e-4), min(ends[1], 1.0 - 1e-4) if metric == "auc" else ends[1]
    axes.set_xscale("function", functions=(forward, back))
    axes.set_xlim(low, high)
    axes.set_xticks(_ticks(forward, low=low, high=high))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.10g}")


def _ticks(forward: Callable[[Any], Any], *, low: float, high: float, least: float = 0.11) -> list[float]:
    """Round values, coarse before fine, each only where it is that share of the axis away from the others."""
    found: list[float] = []
    whole = forward(high) - forward(low)
    for digits in range(1, 6):
        for step in (5, 2, 1):
            size = step * 10.0**-digits
            for place in range(math.ceil(low / size), math.floor(high / size) + 1):
                value = round(place * size, digits)
                if all(abs(forward(value) - forward(other)) >= least * whole for other in found):
                    found.append(value)
        if len(found) >= 5:
            break
    return sorted(found)
