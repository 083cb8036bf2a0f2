"""In short: a page's first sentences, composed from its figures, so that each holds whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.analysis.intervals import Interval
from trainer.benchmark.page.markdown import excludes_zero, is_known, plain, spelled, with_half_width
from trainer.benchmark.page.singles import Single, is_plain
from trainer.benchmark.points import Point
from trainer.benchmark.report import Report

_CLOSE = 0.0010  # of a published AUC


def in_short(report: Report, singles: Sequence[Single]) -> list[str]:
    """The sentences, in order."""
    own = [one for one in singles if is_plain(report, one)]
    found = [_best_single(report, own), *_merged(report), *_paired(report, singles), *_published(report, own)]
    return [*found, *_cost(report), _lowest_loss(report)]


def differing(auc: Interval, log_loss: Interval) -> str:
    """Two differences in words: their values, and on which side of zero their intervals are."""
    values = f"AUC {with_half_width(auc, 5, signed=True)} and log loss {with_half_width(log_loss, 5, signed=True)} nats"
    return f"{values}: {_verdict(auc, log_loss)}"


def _verdict(auc: Interval, log_loss: Interval) -> str:
    if not (is_known(auc) and is_known(log_loss)):
        return "one group of trainings, so no interval"
    clear_auc, clear_loss = excludes_zero(auc), excludes_zero(log_loss)
    if clear_auc and clear_loss:
        better_auc, better_loss = auc.value > 0, log_loss.value < 0
        if better_auc == better_loss:
            return f"{'better' if better_auc else 'worse'} in both, and both intervals exclude zero"
        return (
            f"better in {'AUC' if better_auc else 'log loss'} and worse in the other, and both intervals exclude zero"
        )
    if clear_auc or clear_loss:
        name = "AUC" if clear_auc else "log loss"
        is_better = auc.value > 0 if clear_auc else log_loss.value < 0
        return f"{'better' if is_better else 'worse'} in {name}, whose interval excludes zero; the other holds zero"
    return "both intervals hold zero, so that the two are not told apart"


def _best_single(report: Report, own: Sequence[Single]) -> str:
    best = own[0]
    of = (
        f"Of {len(own)} single members **{best.member}** has the highest AUC"
        if len(own) > 1
        else f"**{best.member}** has"
    )
    figures = (
        f"{with_half_width(best.interval('auc'), 5)}, with a log loss of {plain(best.mean('log_loss_nats'), 5)} nats"
    )
    groups = report.benchmark.groups
    over = f" (mean of {groups} groups of trainings)" if groups > 1 else " (one group of trainings)"
    return f"{of}{',' if len(own) > 1 else ' AUC'} {figures}{over}."


def _named(report: Report, point: Point) -> str:
    title = report.benchmark.strategies[point.strategy].title
    return f"*{title}*, {point.size} predictions merged," if point.size > 1 else f"*{title}*"


def _merged(report: Report) -> list[str]:
    if not _is_headline_apart(report):
        return []
    point, single = report.headline, report.single
    auc, loss = point.interval("auc"), point.interval("log_loss_nats")
    gains = point.gain(single, "auc"), point.gain(single, "log_loss_nats")
    return [
        f"{_named(report, point)} has AUC {with_half_width(auc, 5)} and log loss {with_half_width(loss, 5)} nats.",
        f"Against one model (*{report.benchmark.strategies[single.strategy].title}*) that is {differing(*gains)}.",
    ]


def _paired(report: Report, singles: Sequence[Single]) -> list[str]:
    """The headline against the best of others and the baselines; single members by name are left to the table."""
    members = {name for one in singles for name in (one.member, f"{one.pool}/{one.member}")}
    return [
        f"Its difference to the {one.against}, on the same rows, is"
        f" {differing(one.auc.interval(), one.log_loss_nats.interval())}."
        for one in report.comparisons
        if one.what == report.comparisons[0].what and one.against not in members
    ]


def _published(report: Report, own: Sequence[Single]) -> list[str]:
    compared = [(one, gap) for one in own if (gap := one.behind("auc")) is not None]
    if not compared:
        return []
    ahead = sum(gap >= 0 for _, gap in compared)
    close = sum(gap >= -_CLOSE for _, gap in compared)
    far = [f"{one.member} ({plain(gap, 5, signed=True)})" for one, gap in compared if gap < -_CLOSE]
    rest = f" (not {spelled(far)})" if far else ""
    reached = (
        f"{ahead} of {len(compared)} members with a published AUC reach it, {close} come within {_CLOSE:.4f} of it or"
        f" reach it{rest}"
    )
    if not _is_headline_apart(report):
        return [f"{reached}."]
    published = report.benchmark.published
    best = max(published, key=lambda name: published[name].auc)
    gap = report.headline.interval("auc").value - published[best].auc
    side = "above" if gap > 0 else "below"
    return [
        f"{reached}; the merged AUC is {plain(abs(gap), 4)} {side} the best published one ({best},"
        f" {published[best].auc:.4f})."
    ]


def _cost(report: Report) -> list[str]:
    if not _is_headline_apart(report):
        return []
    point, single = report.headline.cost, report.single.cost
    ratios = [
        f"{plain(of / to, 1)} times the {name}"
        for name, of, to in (
            ("multiply-adds", point.multiply_adds, single.multiply_adds),
            ("parameters", point.parameters, single.parameters),
        )
        if to
    ]
    return [f"It takes {spelled(ratios)} of one model."] if ratios else []


def _lowest_loss(report: Report) -> str:
    best = min(report.points, key=lambda point: point.interval("log_loss_nats").value)
    value = plain(best.interval("log_loss_nats").value, 5)
    if best.strategy == report.headline.strategy and best.size == report.headline.size:
        return "No other strategy here, at any size, has a lower log loss."
    return f"Of all strategies and sizes here {_named(report, best)} has the lowest log loss, {value} nats."


def _is_headline_apart(report: Report) -> bool:
    return report.headline is not report.single
