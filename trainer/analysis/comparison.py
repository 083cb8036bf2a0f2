"""Prediction columns judged on the same rows, each against the merged one, in pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.merge import MERGED
from trainer.analysis.intervals import (
    Estimate,
    auc_difference,
    auc_estimate,
    log_loss_difference,
    mean_estimate,
)
from trainer.metrics.exact import BinaryMetrics, log_losses, metrics_of_probabilities


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One column of predictions against the labels and against the merged column."""

    name: str
    metrics: BinaryMetrics
    auc: Estimate
    log_loss: Estimate
    auc_gain: Estimate  # this column minus merged
    log_loss_gain: Estimate  # this column minus merged, nats


def judge(labels: NDArray[np.floating], columns: Mapping[str, NDArray[np.float64]]) -> list[Judged]:
    """Figures of every column, and its paired differences to merged; merged after the members, baselines last."""
    whole = labels.astype(np.int64)
    merged = columns[MERGED]
    return [
        Judged(
            name=name,
            metrics=metrics_of_probabilities(whole, column),
            auc=auc_estimate(whole, column),
            log_loss=mean_estimate(log_losses(whole, column)),
            auc_gain=auc_difference(whole, column, merged),
            log_loss_gain=log_loss_difference(whole, column, merged),
        )
        for name, column in columns.items()
    ]


def table(judged: Sequence[Judged]) -> str:
    """The comparison as a Markdown table."""

    def paired(of: Judged, pick: Callable[[Judged], Estimate]) -> str:
        if of.name == MERGED:
            return "–"
        return f"{pick(of).value:+.5f} ± {pick(of).half_width():.5f}"

    title = ["column", "AUC", "log loss", "NE", "calibration", "AUC − merged", "log loss − merged"]
    lines = [title, ["---", *["---:"] * (len(title) - 1)]]
    for one in judged:
        figures = one.metrics
        lines.append(
            [
                f"**{one.name}**" if one.name == MERGED else one.name,
                f"{figures.auc:.5f}",
                f"{figures.log_loss_nats:.5f}",
                f"{figures.ne:.5f}",
                f"{figures.calibration:.4f}",
                paired(one, lambda of: of.auc_gain),
                paired(one, lambda of: of.log_loss_gain),
            ]
        )
    merged = next(one for one in judged if one.name == MERGED)
    rows = [f"| {' | '.join(line)} |" for line in lines]
    note = (
        f"{merged.metrics.num_rows:,} rows, label rate {merged.metrics.label_rate:.4f}. Log loss in nats. ±: half the"
        " 95 % interval of the paired difference over rows (DeLong; normal). Unpaired, AUC of merged is"
        f" {merged.auc.value:.4f} ± {merged.auc.half_width():.4f}, its log loss"
        f" {merged.log_loss.value:.4f} ± {merged.log_loss.half_width():.4f}."
    )
    return "\n".join([*rows, "", note]) + "\n"


def draw(judged: Sequence[Judged], *, path: str, apart: Sequence[str] = ()) -> None:
    """Draws AUC and log loss of each column as its paired difference to merged, with 95 % intervals, as PNG.

    Args:
        judged: The columns, as `judge` gives them.
        path: Where the PNG goes.
        apart: Columns in another colour: those that are no members.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    others = [one for one in judged if one.name != MERGED]
    merged = next(one for one in judged if one.name == MERGED)
    panels = (
        ("AUC", f"merged: {merged.metrics.auc:.4f}", "higher is better", [one.auc_gain for one in others]),
        (
            "log loss (nats)",
            f"merged: {merged.metrics.log_loss_nats:.4f}",
            "lower is better",
            [one.log_loss_gain for one in others],
        ),
    )
    size = (9.0, 1.9 + 0.36 * len(others))
    figure, axes = pyplot.subplots(1, 2, sharey=True, figsize=size, layout="constrained")
    places = np.arange(len(others))[::-1]
    colours = ["#c2571a" if one.name in apart else "#2f6db3" for one in others]
    for panel, (what, reference, better, gains) in zip(axes, panels, strict=True):
        panel.axvline(0.0, color="#222222", linewidth=1.2)
        for place, gain, colour in zip(places, gains, colours, strict=True):
            panel.errorbar(gain.value, place, xerr=gain.half_width(), fmt="o", color=colour, capsize=3, markersize=5)
        panel.set_title(f"{what}, {reference}", fontsize=11)
        panel.set_xlabel(f"difference to merged ({better})")
        panel.grid(axis="x", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.locator_params(axis="x", nbins=6)
        panel.set_ylim(-0.6, len(others) - 0.4)
    figure.suptitle(
        f"Each column minus merged on the same {merged.metrics.num_rows:,} rows, with 95 % intervals", fontsize=12
    )
    axes[0].set_yticks(places, [one.name for one in others])
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
