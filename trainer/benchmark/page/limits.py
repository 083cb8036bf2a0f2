"""Limits: what a page's figures do not show, as far as the benchmark's own description tells."""

from __future__ import annotations

from trainer.benchmark.page.markdown import spelled
from trainer.benchmark.points import MOST_SUBSETS
from trainer.benchmark.report import Report


def limits(report: Report) -> list[str]:
    """One sentence or two each."""
    return [*_rows(report), *_trainings(report), *_comparing(report), *_costs()]


def _rows(report: Report) -> list[str]:
    windows = report.benchmark.data.windows
    found = [
        "One data set"
        + (" and one cut of it" if len(windows) == 1 else f" and {len(windows)} cuts of it, averaged")
        + ": other data, and other sizes of data, may order strategies otherwise."
    ]
    looked_at = [name for name, window in windows.items() if set(window.valid) & set(window.test)]
    if looked_at:
        where = "" if len(looked_at) == len(windows) else f" (in {spelled(looked_at)})"
        found.append(
            f"Trainings evaluate on the judged rows{where}, and stop by that where the run says so: figures are then"
            " somewhat better than those of rows never seen."
        )
    if report.fitted and any(not window.tune for window in windows.values()):
        found.append(
            "Fitted merges are fitted on the judged rows, cross-fitted: each row is judged by weights that did not see"
            " it, but by rows behind it in time too, where rows lie in time order. A merge that is put to use is fitted"
            " on other rows than those it meets."
        )
    return found


def _trainings(report: Report) -> list[str]:
    groups = report.benchmark.groups
    if groups == 1:
        return ["One group of trainings: nothing here tells how far other seeds would move a figure."]
    found = [
        f"Intervals over groups rest on {groups} groups ({groups - 1} degree{'s' if groups > 2 else ''} of freedom) and"
        " hold the rows: they tell how far other trainings would move a figure, not how far other rows would. Paired"
        " differences hold both."
    ]
    if any(point.num_subsets > 1 for point in report.points):
        found.append(
            f"Where a group has more columns than are merged, a figure is the mean over subsets, {MOST_SUBSETS} at"
            " most; they share columns, as do the sizes of a strategy, so neighbouring sizes are not independent."
        )
    return found


def _comparing(report: Report) -> list[str]:
    found = ["Which single member has the highest AUC is read off the judged rows, which favours it a little."]
    if report.baselines:
        found.append("Baselines are fitted once: their differences hold no error of another fit of theirs.")
    differences = 2 * len(report.comparisons) + 2 * sum(len(report.of(name)) for name in report.benchmark.strategies)
    if differences >= 20:
        found.append(
            f"Each interval has 95 % by itself. There are about {differences} differences on this page; were none real,"
            f" about {differences // 20} would still exclude zero."
        )
    return found


def _costs() -> list[str]:
    return [
        "Multiply-adds are those of the dense layers' forward pass. Lookups in tables, memory traffic and what a server"
        " adds are not in them; on other machines rows a second are others."
    ]
