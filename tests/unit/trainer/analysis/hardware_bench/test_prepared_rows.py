"""Prepared rows: the loader reads the folder that is made, the file is read whole, and rates are of the right ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.analysis.hardware_bench.here import QUICK, alone
from trainer.analysis.hardware_bench import prepared_rows
from trainer.analysis.hardware_bench.points import Point


def test_rows_are_made_read_and_batched(tmp_path: Path) -> None:
    root, file = str(tmp_path / "rows"), str(tmp_path / "file")
    prepared_rows.make_rows(root, QUICK)
    (batches,) = prepared_rows.make_batches(alone(), root)
    assert batches.size["rows"] == 16_384
    prepared_rows.make_file(file, QUICK)
    (read,) = prepared_rows.read_file(alone(), file)
    assert read.size["bytes"] == 8 * 2**20
    assert read.size["from_disk"] >= 0
    assert min(batches.mean_seconds, read.mean_seconds) > 0


def test_a_disk_serves_all_ranks_and_a_loader_one() -> None:
    points = [
        Point(what="read", size={"bytes": 1e9, "from_disk": 1.0}, seconds=(1.0, 2.0)),
        Point(what="batches", size={"rows": 3e6}, seconds=(1.0, 2.0)),
    ]
    assert prepared_rows.disk_gb_per_s(points) == pytest.approx(1.0)
    assert prepared_rows.batch_rows_per_s(points) == pytest.approx(2e6)
