"""What columns cost together: shared tables and trainings count once."""

from __future__ import annotations

from dataclasses import replace

from trainer.benchmark.columns import ColumnCost, MergedCost

ONE = ColumnCost(kind="mlp", dense_parameters=10, multiply_adds=100, tables={"job/shared": 50}, trainings={"job": 8.0})


def test_what_columns_share_counts_once() -> None:
    merged = MergedCost.of([ONE, replace(ONE, multiply_adds=200)])
    assert merged == MergedCost(parameters=70, table_bytes=200, multiply_adds=300, train_seconds=8.0)


def test_what_they_have_of_their_own_adds_up() -> None:
    other = replace(ONE, tables={"other/own": 30}, trainings={"job": 8.0, "other": 4.0})
    merged = MergedCost.of([ONE, other])
    assert merged == MergedCost(parameters=100, table_bytes=320, multiply_adds=200, train_seconds=12.0)
