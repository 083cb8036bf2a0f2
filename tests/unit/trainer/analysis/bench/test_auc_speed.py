"""AucSpeed: what it makes is what it says, and both ways agree on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.analysis.bench import auc_speed
from trainer.analysis.bench.auc_speed import measure


@pytest.mark.parametrize("in_files", [False, True])
def test_both_ways_are_measured_on_made_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_files: bool
) -> None:
    monkeypatch.setattr(auc_speed, "_CHUNK_ROWS", 16_384)
    said: list[str] = []
    folder = str(tmp_path / "columns") if in_files else None
    found = measure(num_rows=60_000, num_columns=2, folder=folder, say=said.append)
    assert found.from_files == in_files
    assert 0.030 < found.label_rate < 0.038
    assert 0.8 < found.distinct_share < 1.0  # ties, not all
    assert len(found.columns) == len(said) == 2
    assert found.columns[0].auc != found.columns[1].auc
    for column in found.columns:
        assert 0.7 < column.auc < 0.8
        assert column.lower <= column.auc <= column.upper
        assert min(column.exact_seconds, column.streaming_seconds) > 0
        assert column.streaming_bytes > 0
    assert 0 < found.bracket_width < 1e-5
    text = "\n".join(found.lines())
    assert "60,000 rows" in text and "inside" in text and ("Parquet" in text) == in_files
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_column_in_a_file_is_the_one_in_memory(tmp_path: Path) -> None:
    kept, written = (measure(num_rows=5_000, num_columns=1, folder=folder) for folder in (None, str(tmp_path)))
    assert kept.columns[0].auc == written.columns[0].auc
