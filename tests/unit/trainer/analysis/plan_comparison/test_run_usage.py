"""What usage.json says: medians of warm windows, growth of memory, and what it cannot be used for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError, DataError
from tests.unit.trainer.analysis.plan_comparison.made_usage import MIB, made_rank, made_usage, made_window
from trainer.analysis.plan_comparison.run_usage import read_usage, usage_of


def test_figures_are_medians_of_the_windows_after_the_first() -> None:
    usage = usage_of(made_usage(), source="usage.json")
    assert usage.step_seconds == pytest.approx(0.2)
    assert usage.rows_per_second == pytest.approx(500.0)
    assert usage.other_seconds == pytest.approx(0.2 - 4 * 0.02 - 0.01)
    assert usage.allocated["table_weights"] == (4_000,)
    assert usage.num_windows == 3


def test_growth_leaves_out_pages_of_files() -> None:
    usage = usage_of(made_usage(made_rank(grown_mib=50), made_rank(grown_mib=70)), source="usage.json")
    assert usage.growth_bytes == (50 * MIB, 70 * MIB)


def test_growth_of_a_gpu_is_what_torch_has_allocated() -> None:
    rank = made_rank()
    rank["memory"]["before_assembly"] |= {"gpu_allocated_bytes": 5}
    rank["memory"]["trained"] |= {"gpu_peak_allocated_bytes": 105, "gpu_peak_reserved_bytes": 200}
    usage = usage_of(made_usage(rank, machine={"device": "cuda"}), source="usage.json")
    assert usage.growth_bytes == (100,)


def test_phases_are_those_of_the_rank_that_waits_least() -> None:
    usage = usage_of(made_usage(made_rank(communication=0.05), made_rank(communication=0.003)), source="usage.json")
    assert usage.phases["communication"] == 0.003


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (made_usage(version=0), "not what this version of trainer/main.py writes; train again"),
        ([], "not what this version of trainer/main.py writes; train again"),
        (made_usage(made_rank(), made_rank(), complete=False), "killed before ranks other than 0 had told"),
        (made_usage(made_rank() | {"windows": [made_window(1.0, warm_up=True)]}), "no window after the first"),
        (made_usage(made_rank() | {"memory": {"before_assembly": {}, "trained": {}}}), "which only Linux tells"),
    ],
)
def test_what_cannot_be_used(body: Any, told: str) -> None:
    with pytest.raises(DataError, match=f"^usage.json: .*{told}"):
        usage_of(body, source="usage.json")


def test_a_single_rank_that_was_killed_has_told_all() -> None:
    assert usage_of(made_usage(complete=False), source="usage.json").world_size == 1


def test_a_folder_without_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no usage.json; .* where an older version trained it, train it again"):
        read_usage(str(tmp_path))
    (tmp_path / "usage.json").write_text("{")
    with pytest.raises(DataError, match=r"usage.json: not JSON"):
        read_usage(str(tmp_path))
    (tmp_path / "usage.json").write_text(json.dumps(made_usage()))
    assert read_usage(str(tmp_path)).batch_size == 100
