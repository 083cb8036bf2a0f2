"""Predicted beside measured: which bytes count as grown, which figures are exact, how they are shown."""

from __future__ import annotations

import dataclasses

import pytest

from configs.errors import ConfigError
from configs.hardware_schema import Calibration
from configs.schema import RunConfig
from tests.support.hardware_files import small_machine
from tests.support.runs import small_run
from tests.unit.trainer.analysis.plan_comparison.made_points import FACTS, made_point
from tests.unit.trainer.analysis.plan_comparison.made_usage import made_usage
from trainer.analysis.plan_comparison.comparison import (
    Compared,
    as_json,
    compare,
    grown_bytes,
    lines,
    phase_seconds,
)
from trainer.analysis.plan_comparison.run_usage import usage_of

CONFIG = small_run()
USAGE = usage_of(made_usage(), source="usage.json")


def test_growth_is_what_was_not_there_before() -> None:
    point = made_point(held={"table_weights": (4_000,), "batches": (10_000,), "process": (7,), "reserve": (9,)})
    windows = 2 * 64 * FACTS.stored_bytes  # of small.toml, and fewer than its rows
    hardware = small_machine(calibration=Calibration(memory_gib=0.5, runs=1))
    assert grown_bytes(point, config=CONFIG, data=FACTS, hardware=hardware) == (4_000 + 10_000 + 2**29 - windows,)


@pytest.mark.parametrize(("every", "counts"), [("{}", False), ("{steps = 2}", True), ("{seconds = 9.0}", True)])
def test_a_copy_for_checkpoints_counts_where_one_is_written_while_training(every: str, counts: bool) -> None:
    config: RunConfig = small_run(f"--checkpoint.every={every}", "--data.shuffle_window=0")
    point = made_point(held={"table_weights": (4_000,), "checkpoint_copy": (300,)})
    grown = grown_bytes(point, config=config, data=FACTS, hardware=small_machine())
    assert grown == (4_300 if counts else 4_000,)


def test_data_is_what_nothing_hides() -> None:
    parts = {"data": 0.3, "lookup": 0.1, "communication": 0.0, "dense": 0.1, "optimizer": 0.0}
    assert phase_seconds(made_point(parts=parts, total=0.5))["data"] == pytest.approx(0.3)  # one after the other
    assert phase_seconds(made_point(parts=parts, total=0.3))["data"] == pytest.approx(0.1)  # beside the others
    assert phase_seconds(made_point(parts=parts | {"data": 0.1}, total=0.2))["data"] == 0.0


def test_exact_bytes_are_said_to_be() -> None:
    held = {"table_weights": (4_000,), "table_optimizer": (401,)}
    point = made_point(held=held, parts=dict.fromkeys(USAGE.phases, 0.03), total=0.1)
    found = compare(point, USAGE, config=CONFIG, data=FACTS, hardware=small_machine())
    shown = {line[:32].strip(): line for line in lines(found)}
    assert shown["weights of tables"].endswith("exact")
    assert shown["optimizer state of tables"].endswith("1.00")  # 401 for 400: close, and not exact
    assert shown["optimizer state of members"].endswith("0.00")  # nothing was predicted
    assert shown["step"].split()[1:] == ["100.00", "ms", "200.00", "ms", "0.50"]
    ratios = {row["name"]: row["ratio"] for row in as_json(found)}
    assert ratios["step"] == 0.5 and ratios["dense"] == pytest.approx(1.5)


def test_a_figure_that_was_nothing_has_no_ratio() -> None:
    nothing = Compared(name="data", unit="seconds", predicted=0.0, measured=0.0)
    assert (nothing.ratio, nothing.error) == (None, 0.0)
    assert dataclasses.replace(nothing, predicted=1.0).error == float("inf")


def test_hardware_of_another_device_is_refused() -> None:
    usage = dataclasses.replace(USAGE, device="cuda")
    with pytest.raises(ConfigError, match=r"--hardware: 'small' is cpu, but the run was on cuda"):
        compare(made_point(), usage, config=CONFIG, data=FACTS, hardware=small_machine())
