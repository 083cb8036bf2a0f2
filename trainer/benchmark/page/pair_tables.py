"""Pair tables: fitted merges, and predictions held against each other on the same rows."""

from __future__ import annotations

from trainer.analysis.intervals import Estimate
from trainer.benchmark.fitted import MEAN, FittedMerge
from trainer.benchmark.page.markdown import (
    DASH,
    DIGITS,
    TITLES,
    count,
    folded,
    gain,
    plain,
    sections,
    table,
    with_half_width,
)
from trainer.benchmark.points import METRICS, over_groups
from trainer.benchmark.report import Report


def comparison_section(report: Report) -> str:
    """Baselines and paired differences; empty where there are none."""
    return sections(_baselines(report), _comparisons(report))


def _baselines(report: Report) -> str:
    if not report.baselines:
        return ""
    rows = [
        [name, *(plain(getattr(one, metric), DIGITS[metric]) for metric in METRICS)]
        for name, one in report.baselines.items()
    ]
    note = (
        "Baselines, fitted on the same training rows with settings chosen inside them, once, so without an interval"
        " over groups:"
    )
    return f"{note}\n\n{table(['baseline', *(TITLES[metric] for metric in METRICS)], rows)}"


def _comparisons(report: Report) -> str:
    if not report.comparisons:
        return ""
    rows = [[one.what, one.against, *_difference(one.auc, one.log_loss_nats)] for one in report.comparisons]
    groups = " and over groups of trainings together" if report.benchmark.groups > 1 else " alone"
    note = (
        "The first minus the second on the same rows, ± half the 95 % interval: over rows (DeLong for AUC, a"
        f" mean's for log loss){groups}. Clear: zero is outside."
    )
    head = ["what", "against", "AUC", "log loss", "clear"]
    return sections(note, table(head, rows, words=2))


def fitted_section(report: Report) -> str:
    """Fitted merges and what they weigh; empty where there are none."""
    if not report.fitted:
        return ""
    tuned = all(len(rows.tune_labels_T) for rows in report.results.rows.values())
    note = (
        "Weights fitted "
        + ("on rows set aside for that" if tuned else "on the judged rows, cross-fitted")
        + ", beside the mean logit of the same columns; means over groups, ± half the 95 % interval. *All groups*: the"
        " columns of all groups merged at once, so one figure; its differences have the error over rows alone. Bold"
        " where the interval excludes zero."
    )
    head = ["strategy", "columns of", "rule", "K", "AUC", "log loss", "AUC − mean logit", "log loss − mean logit"]
    rows = [[_title(report, one), one.scope, _rule(one), count(one.columns), *_fitted(one)] for one in report.fitted]
    return sections(note, table(head, rows, words=3), folded("Weights", _weights(report)))


def _title(report: Report, one: FittedMerge) -> str:
    return report.benchmark.strategies[one.strategy].title


def _rule(one: FittedMerge) -> str:
    return one.rule.replace("_", " ")


def _fitted(one: FittedMerge) -> list[str]:
    shown = [
        with_half_width(over_groups([getattr(of, metric) for of in one.figures]), 5)
        for metric in ("auc", "log_loss_nats")
    ]
    if one.rule == MEAN:
        return [*shown, DASH, DASH]
    return [*shown, *(gain(one.difference[metric].interval(), 5) for metric in ("auc", "log_loss_nats"))]


def _weights(report: Report) -> str:
    """Of each strategy and scope: member by rule."""
    parts = []
    for place in dict.fromkeys((one.strategy, one.scope) for one in report.fitted):
        merges = [one for one in report.fitted if (one.strategy, one.scope) == place]
        members = dict.fromkeys(member for one in merges for member in one.weights)
        rows = [[member, *(plain(one.weights.get(member), 3) for one in merges)] for member in members]
        heading = f"{_title(report, merges[0])}, columns of {merges[0].scope}: each member's weights together, mean"
        parts.append(f"{heading}\n\n{table(['member', *map(_rule, merges)], rows)}")
    return sections(*parts)


def _difference(auc: Estimate, log_loss: Estimate) -> list[str]:
    clear = [name for name, one in (("AUC", auc), ("log loss", log_loss)) if one.is_clear()]
    return [gain(auc.interval(), 5), gain(log_loss.interval(), 5), ", ".join(clear) or "no"]
