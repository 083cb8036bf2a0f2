"""The chart of how far predictions move when everything is trained anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from trainer.benchmark.page.look import GREY, Mark, half_widths, new_figure, tidy
from trainer.benchmark.report import Report
from trainer.benchmark.stability import Stability


def shown_stability(report: Report) -> list[Stability]:
    """One model, and every strategy at its largest size, the steadiest first."""
    last: dict[str, Stability] = {}
    for one in report.stability:
        if one.strategy not in last or one.size > last[one.strategy].size:
            last[one.strategy] = one
    return sorted(last.values(), key=lambda one: one.mean_change.value)


def stability_chart(report: Report, *, marks: Mapping[str, Mark]) -> Figure:
    """Mean change of a row's probability between two groups of trainings, a bar for each strategy."""
    shown = shown_stability(report)
    figure = new_figure(9.0, 1.3 + 0.32 * len(shown))
    axes = figure.subplots()
    tidy(axes)
    axes.grid(visible=False, axis="y")
    places = list(range(len(shown)))[::-1]
    for place, one in zip(places, shown, strict=True):
        axes.barh(place, one.mean_change.value, height=0.62, color=marks[one.strategy].colour, alpha=0.85)
        ends = half_widths([one.mean_change])
        if ends is not None:
            axes.errorbar(one.mean_change.value, place, xerr=ends, fmt="none", ecolor="#222222", capsize=3)
    _single_line(axes, report, shown)
    axes.set_yticks(places, [_title(report, one) for one in shown])
    axes.set_xlim(left=0.0)
    axes.set_xlabel("mean |p − p′| of a row between two groups of trainings (lower is steadier)")
    return figure


def _single_line(axes: object, report: Report, shown: Sequence[Stability]) -> None:
    single = next((one for one in shown if one.strategy == report.benchmark.single), None)
    if single is not None:
        axes.axvline(single.mean_change.value, color=GREY, linewidth=1.0, dashes=(4, 3))  # type: ignore[attr-defined]


def _title(report: Report, one: Stability) -> str:
    title = report.benchmark.strategies[one.strategy].title
    return f"{title}, K = {one.size}" if one.size > 1 else title
