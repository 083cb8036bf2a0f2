"""The chart of how subsets of columns differ against what merging them gains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from trainer.benchmark.diversity import DiversityStudy, MeasuredSubset
from trainer.benchmark.page.look import GREY, new_figure, tidy
from trainer.benchmark.page.markdown import plain

MEASURES = {
    "logit_correlation": "correlation of logits",
    "residual_correlation": "correlation of errors",
    "disagreement": "disagreement, mean |pᵢ − pⱼ|",
    "log_loss_ambiguity": "ambiguity, nats",
}
GAINS = {
    "log_loss_over_best": "log loss, nats, less\nthan the best member",
    "auc_over_best": "AUC over\nthe best member",
}


def drawn_study(studies: Sequence[DiversityStudy]) -> DiversityStudy:
    """That of one size with the most subsets, the smallest such."""
    return max((one for one in studies if one.size is not None), key=lambda one: len(one.points))


def diversity_chart(study: DiversityStudy) -> Figure:
    """Gains over the best member against four measures, a dot for each subset, its mean over groups and windows."""
    figure = new_figure(11.0, 5.6)
    panels = figure.subplots(len(GAINS), len(MEASURES), sharex="col", sharey="row")
    dots: dict[object, list[MeasuredSubset]] = {}
    for one in study.points:
        dots.setdefault((one.strategy, one.columns), []).append(one)
    for row, (gain, gain_title) in zip(panels, GAINS.items(), strict=True):
        row[0].set_ylabel(gain_title)
        ys = [float(np.mean([one.gains[gain] for one in same])) for same in dots.values()]
        for axes, measure in zip(row, MEASURES, strict=True):
            tidy(axes)
            axes.axhline(0.0, color=GREY, linewidth=1.0)
            xs = [float(np.mean([one.measures[measure] for one in same])) for same in dots.values()]
            axes.plot(xs, ys, "o", color="#2f6db3", markersize=4, markeredgewidth=0)
            axes.set_title(_agreement(study, measure=measure, gain=gain), fontsize=9)
    for axes, title in zip(panels[-1], MEASURES.values(), strict=True):
        axes.set_xlabel(title)
        axes.locator_params(axis="x", nbins=5)
    figure.suptitle(
        f"Merging K = {study.size} columns: gain against how they differ; a dot is a subset, mean over groups"
    )
    return figure


def _agreement(study: DiversityStudy, *, measure: str, gain: str) -> str:
    found = next(one for one in study.rows if (one.measure, one.gain) == (measure, gain))
    return f"rank correlation {plain(found.correlation.value, 2, signed=True)}"
