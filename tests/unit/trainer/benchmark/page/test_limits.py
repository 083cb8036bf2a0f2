"""Limits: each is said where the benchmark is so, and only there."""

from __future__ import annotations

from dataclasses import replace

from configs.benchmark_schema import Window
from tests.support.benchmarks import made_results
from trainer.benchmark.fitted import FittedMerge
from trainer.benchmark.page.limits import limits
from trainer.benchmark.points import points
from trainer.benchmark.report import Report

FITTED = FittedMerge(
    strategy="kinds", rule="mean_logit", columns=3, scope="group", figures=(), difference={}, weights={}
)


def said(*, fit: bool = False, **changes: object) -> str:
    results = made_results(num_rows=200, **changes)  # type: ignore[arg-type]
    fitted = [FITTED] if fit else []
    report = Report(results=results, points=points(results), num_trainings=1, machine="", fitted=fitted)
    return " ".join(limits(report))


def test_rows_that_trainings_evaluate_on() -> None:
    assert "Trainings evaluate on the judged rows" not in said(num_tune=200)  # valid are other rows
    results = made_results(num_rows=200)
    looked = Window(train=("train",), valid=("test",), test=("test",))
    benchmark = replace(results.benchmark, data=replace(results.benchmark.data, windows={"all": looked}))
    report = Report(results=replace(results, benchmark=benchmark), points=points(results), num_trainings=1, machine="")
    assert "Trainings evaluate on the judged rows" in " ".join(limits(report))


def test_one_group_and_several() -> None:
    assert "One group of trainings" in said(groups=1)
    assert "rest on 3 groups (2 degrees of freedom)" in said(groups=3)
    assert "rest on 2 groups (1 degree of freedom)" in said(groups=2)


def test_cuts_and_cross_fitting() -> None:
    assert "one cut of it" in said()
    assert "2 cuts of it, averaged" in said(windows=("early", "late"))
    assert "cross-fitted" in said(fit=True, fitted=("kinds",))
    assert "cross-fitted" not in said(fit=True, fitted=("kinds",), num_tune=200)
