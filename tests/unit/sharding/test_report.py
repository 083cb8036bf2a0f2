"""PlanReport: bytes per rank summed by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sharding.report import PlanReport, report_plan

TABLES: dict[str, Any] = {
    "a/C1": {
        "sharding_type": "row_wise",
        "shards": [{"sizes": [6, 8], "rank": 0}, {"sizes": [5, 8], "rank": 2}],
    },
    "a/C2": {"sharding_type": "table_wise", "shards": [{"sizes": [100, 8], "rank": 2}]},
    "a/C3": {"sharding_type": "data_parallel", "shards": []},
    "a/C4": {"sharding_type": "data_parallel", "shards": []},
}
SIZES = {"a/C1": (11, 8), "a/C2": (100, 8), "a/C3": (3, 8), "a/C4": (2, 4)}


def test_bytes_are_four_a_value_and_copies_count_on_every_rank() -> None:
    report = report_plan(TABLES, sizes=SIZES, world_size=3)
    copies = 4 * (3 * 8 + 2 * 4)
    assert report.table_bytes_per_rank == (copies + 4 * 48, copies, copies + 4 * (40 + 800))
    assert report.tables_per_sharding_type == {"row_wise": 1, "table_wise": 1, "data_parallel": 2}


def test_imbalance_is_the_fullest_rank_over_the_mean() -> None:
    def report(*per_rank: int) -> PlanReport:
        return PlanReport(table_bytes_per_rank=per_rank, tables_per_sharding_type={})

    assert report(30, 10, 20).imbalance == pytest.approx(1.5)
    assert report(7, 7).imbalance == 1.0
    assert report(0, 0).imbalance == 1.0


def test_the_report_is_plain_values_and_one_sentence() -> None:
    report = PlanReport(table_bytes_per_rank=(3 * 2**20, 2**20), tables_per_sharding_type={"row_wise": 2, "a": 1})
    assert report.sentence() == "plan: 1 a, 2 row_wise tables; 3.0 MiB on the fullest rank, 1.50 x the mean"
    assert json.loads(json.dumps(report.as_json())) == {
        "table_bytes_per_rank": [3 * 2**20, 2**20],
        "imbalance": 1.5,
        "tables_per_sharding_type": {"row_wise": 2, "a": 1},
    }
