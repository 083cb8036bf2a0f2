"""Plain values: everything that a page shows, for programs, in seven significant digits; null where it is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from trainer.analysis.intervals import Estimate
from trainer.benchmark.page.merged_tables import rows_per_second
from trainer.benchmark.page.singles import Single, is_plain
from trainer.benchmark.page.size_fits import SizeFit
from trainer.benchmark.points import METRICS, Point
from trainer.benchmark.report import Report

_DIGITS = 7


def plain_values(
    report: Report, *, name: str, singles: Sequence[Single], fits: Sequence[SizeFit], sentences: Sequence[str]
) -> dict[str, Any]:
    """All figures of a benchmark."""
    benchmark, results = report.benchmark, report.results
    found = {
        "name": name,
        "title": benchmark.title,
        "in_short": list(sentences),
        "machine": report.machine,
        "num_trainings": report.num_trainings,
        "train_seconds": results.train_seconds,
        "cpu_seconds": results.cpu_seconds,
        "groups": benchmark.groups,
        "single": benchmark.single,
        "headline": benchmark.headline,
        "data": benchmark.data,
        "rows": {
            window: {
                "judged": len(rows.labels_N),
                "label_rate": float(np.mean(rows.labels_N)),
                "tuned": len(rows.tune_labels_T),
            }
            for window, rows in results.rows.items()
        },
        "strategies": benchmark.strategies,
        "singles": [_single(report, one) for one in singles],
        "points": [_point(report, one) for one in report.points],
        "size_fits": [_fields(one) | {"tells_limit": one.tells_limit} for one in fits],
        "baselines": report.baselines,
        "comparisons": report.comparisons,
        "fitted": report.fitted,
        "diversity": [one.as_json() for one in report.diversity],
        "stability": [one.as_json() for one in report.stability],
    }
    return {key: _plain(value) for key, value in found.items()}


def _single(report: Report, single: Single) -> dict[str, Any]:
    intervals = {metric: single.interval(metric) for metric in METRICS}
    return _fields(single) | {"is_plain": is_plain(report, single)} | intervals


def _point(report: Report, point: Point) -> dict[str, Any]:
    gains = {metric: point.gain(report.single, metric) for metric in METRICS}
    return (
        point.as_json()
        | {metric: point.interval(metric) for metric in METRICS}
        | {"minus_single": gains, "rows_per_second": rows_per_second(report, point)}
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return _plain(_fields(value) | _fields(value.interval()))
    if is_dataclass(value):
        return _plain(_fields(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def _fields(value: Any) -> dict[str, Any]:
    """One level of a dataclass, so that what it holds is still what it is."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
