"""mean_ids(): what counting the ids of all rows gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.schema import Data
from tests.unit.trainer.data.prepared import mixed_arrays, mixed_folder
from trainer.data.reading.mean_ids import mean_ids
from trainer.data.reading.opening import open_sources
from trainer.data.reading.source import PreparedSource

MIXED = {"a": mixed_arrays(11, seed=1), "none": mixed_arrays(0, seed=2), "b": mixed_arrays(8, seed=3)}


@pytest.mark.parametrize("parts", [["a"], ["a", "none", "b"], ["b", "none"]], ids=str)
def test_means_of_all_kinds_of_features(tmp_path: Path, parts: list[str]) -> None:
    source = PreparedSource(root=mixed_folder(tmp_path / "data", MIXED), parts=parts)
    lengths = source.read(np.arange(source.num_rows)).lengths  # [F, n]
    assert mean_ids(source) == dict(zip(source.features.table_rows, lengths.mean(axis=1).tolist(), strict=True))
    assert len({round(mean) for mean in mean_ids(source).values()}) > 1


def test_no_rows_have_no_ids(tmp_path: Path) -> None:
    source = PreparedSource(root=mixed_folder(tmp_path / "data", MIXED), parts=["none"])
    assert mean_ids(source)["genres"] == 0.0


def test_the_stream_has_one_of_each() -> None:
    source = open_sources(Data()).train
    assert mean_ids(source) == dict.fromkeys(source.features.table_rows, 1.0)
