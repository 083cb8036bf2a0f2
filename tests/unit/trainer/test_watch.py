"""The watched figure: what improves, what reaches the target, and what NaN does."""

from __future__ import annotations

import json
import math

import pytest

from configs.training_schema import Watch
from trainer.metrics.exact import BinaryMetrics, from_sums
from trainer.metrics.meters import MeteredColumn
from trainer.watch import QualityWatch

NAN = math.nan


def quality(value: float, *, metric: str, column: str = "merged") -> dict[str, MeteredColumn]:
    """An evaluation with that figure in that column; every other figure misleads."""
    figures = {"auc": 0.99, "log_loss_nats": 1e-9, "ne": 1e-9} | {metric: value}
    found = {column: figures, "other": {"auc": 0.1, "log_loss_nats": 9.0, "ne": 9.0}}
    return {
        name: MeteredColumn(
            metrics=BinaryMetrics(num_rows=9, label_rate=0.5, calibration=1.0, **given),
            auc_error=0.0,
        )
        for name, given in found.items()
    }


@pytest.mark.parametrize(
    ("metric", "values", "improved"),
    [
        ("auc", [0.6, 0.7, 0.7, 0.65, 0.71], [True, True, False, False, True]),
        ("log_loss_nats", [0.6, 0.7, 0.6, 0.5, 0.55], [True, False, False, True, False]),
        ("ne", [1.2, 0.9, 0.8], [True, True, True]),
        ("auc", [NAN, 0.2, NAN, 0.3], [False, True, False, True]),
        ("log_loss_nats", [NAN, 0.7, NAN, math.inf, 0.6], [False, True, False, False, True]),
    ],
)
def test_an_evaluation_improves_on_all_before_it(metric: str, values: list[float], improved: list[bool]) -> None:
    watch = QualityWatch(Watch(metric=metric))  # type: ignore[arg-type]
    verdicts = [watch.update(quality(value, metric=metric)) for value in values]
    assert [verdict.improved for verdict in verdicts] == improved
    assert [verdict.value for verdict in verdicts] == pytest.approx(values, nan_ok=True)
    assert not any(verdict.reached_target for verdict in verdicts)


@pytest.mark.parametrize(
    ("metric", "target", "values", "reached"),
    [
        ("auc", 0.8, [0.79, 0.8, 0.9, NAN], [False, True, True, False]),
        ("log_loss_nats", 0.5, [0.51, 0.5, 0.1, NAN, math.inf], [False, True, True, False, False]),
        ("ne", math.inf, [3.0, NAN], [True, False]),
    ],
)
def test_a_target_is_reached_when_the_figure_is_as_good(
    metric: str, target: float, values: list[float], reached: list[bool]
) -> None:
    watch = QualityWatch(Watch(metric=metric, target=target))  # type: ignore[arg-type]
    assert not watch.is_done
    assert [watch.update(quality(value, metric=metric)).reached_target for value in values] == reached
    assert watch.is_done
    restored = QualityWatch(Watch(metric=metric, target=target))
    restored.restore(watch.state())
    assert restored.is_done and not QualityWatch(Watch(metric=metric)).is_done


@pytest.mark.parametrize(("metric", "best_first"), [("auc", [0.9, 0.5, NAN]), ("ne", [0.5, 0.9, NAN])])
def test_ranks_sort_evaluations(metric: str, best_first: list[float]) -> None:
    watch = QualityWatch(Watch(metric=metric))  # type: ignore[arg-type]
    ranks = [watch.update(quality(value, metric=metric)).rank for value in best_first]
    assert ranks == sorted(ranks, reverse=True) and ranks[-1] == -math.inf and ranks[0] > ranks[1]


def test_it_watches_the_column_it_was_given() -> None:
    watch = QualityWatch(Watch(column="deep", metric="auc"))
    assert watch.update(quality(0.4, metric="auc", column="deep")).value == 0.4


def test_no_rows_are_no_improvement() -> None:
    metrics = from_sums(num_rows=0, label_sum=0.0, loss_sum=0.0, probability_sum=0.0, auc=NAN)
    empty = {"merged": MeteredColumn(metrics=metrics, auc_error=NAN)}
    for metric in ("auc", "log_loss_nats", "ne"):
        watch = QualityWatch(Watch(metric=metric, target=0.5))
        verdict = watch.update(empty)
        assert math.isnan(verdict.value) and not verdict.improved and not verdict.reached_target
        assert watch.state() == {}


def test_a_restored_watch_remembers_the_best() -> None:
    first = QualityWatch(Watch(metric="auc"))
    first.update(quality(0.7, metric="auc"))
    first.update(quality(0.6, metric="auc"))
    second = QualityWatch(Watch(metric="auc"))
    second.restore(json.loads(json.dumps(first.state())))
    assert [second.update(quality(value, metric="auc")).improved for value in (0.69, 0.7, 0.71)] == [False, False, True]


def test_the_best_of_another_figure_is_no_measure() -> None:
    first = QualityWatch(Watch(metric="auc"))
    first.update(quality(0.7, metric="auc"))
    for other in (Watch(metric="ne"), Watch(metric="auc", column="other")):
        watch = QualityWatch(other)
        watch.restore(first.state())
        assert watch.state() == {}
        assert watch.update(quality(0.9, metric="ne")).improved
