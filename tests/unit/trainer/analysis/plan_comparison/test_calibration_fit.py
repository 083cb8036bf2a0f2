"""A calibration is found again in runs made of it, is not led by one bad run, and is written beside what was there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs.errors import ConfigError
from configs.hardware_schema import Calibration
from configs.loader import dump_hardware, read_hardware
from tests.support.hardware_files import small_machine
from tests.unit.trainer.analysis.plan_comparison.made_points import made_point, made_study_point
from trainer.analysis.plan_comparison.calibration_fit import fit, with_calibration
from trainer.analysis.plan_comparison.study_points import StudyPoint, uncalibrated

MIB = 1 << 20
TRUE = {"lookup": 1.5, "communication": 2.5, "dense": 0.8, "optimizer": 1.2}


BUFFERS = {"alone": 0.8, "exchanged": 1.5, "row_wise": 3.0}


def runs(count: int, *, activation_factor: float = 1.3, beside: int = 64 * MIB) -> list[StudyPoint]:
    """Runs that took exactly what TRUE makes of the model."""
    numbers = np.random.default_rng(3)
    made = []
    for number in range(count):
        parts = {phase: float(numbers.uniform(0.01, 0.2)) for phase in (*TRUE, "data")}
        activations, tables, buffers = (int(numbers.integers(50, 500)) * MIB for _ in range(3))
        share = (None, 0.0, 0.5, 1.0)[number % 4]
        factor = BUFFERS["alone"] if share is None else share * BUFFERS["row_wise"] + (1 - share) * BUFFERS["exchanged"]
        held = {"table_weights": (tables,), "activations": (activations,), "embedding_buffers": (buffers,)}
        point = made_point(parts=parts, held=held, row_wise_share=share)
        took = {phase: parts[phase] * factor for phase, factor in TRUE.items()} | {"data": 0.001}
        made.append(
            made_study_point(
                point,
                key=f"run {number}",
                grown=tables + activations + buffers,
                growth=round(tables + activation_factor * activations + factor * buffers + beside),
                measured=took,
                step_seconds=sum(took.values()) - 0.001 + 3.0 * parts["data"],
            )
        )
    return made


def test_what_runs_were_made_of_is_found() -> None:
    found = fit(runs(12), hardware=small_machine())
    assert found.factors == pytest.approx(TRUE, rel=1e-3)  # data hide behind the rest, so their time is not known
    assert found.activation_factor == pytest.approx(1.3, rel=1e-2)
    assert found.memory_gib == pytest.approx(1 / 16, rel=0.05)
    assert found.buffer_factors == pytest.approx(BUFFERS, rel=0.02)
    assert found.runs == 12


def test_where_nothing_overlaps_data_take_what_is_left() -> None:
    found = fit(runs(12), hardware=dataclasses.replace(small_machine(), overlap="none"))
    assert found.factors["data"] == pytest.approx(3.0, rel=0.1)


def test_one_bad_run_does_not_lead() -> None:
    made = runs(16)
    spoilt = dataclasses.replace(
        made[0].usage, phases={phase: 9.0 for phase in made[0].usage.phases}, growth_bytes=(9_000 * MIB,)
    )
    found = fit([dataclasses.replace(made[0], usage=spoilt), *made[1:]], hardware=small_machine())
    assert found.factors == pytest.approx(TRUE, rel=1e-3)
    assert found.activation_factor == pytest.approx(1.3, rel=0.05)


def test_a_rank_alone_says_nothing_of_communication() -> None:
    alone = [
        dataclasses.replace(
            one,
            point=dataclasses.replace(
                one.point,
                step=dataclasses.replace(one.point.step, parts={**one.point.step.parts, "communication": 0.0}),
            ),
        )
        for one in runs(7)
        if one.point.step is not None
    ]
    assert "communication" not in fit(alone, hardware=small_machine()).factors


def test_too_few_runs() -> None:
    with pytest.raises(ConfigError, match="5 run"):
        fit(runs(5), hardware=small_machine())


def test_the_files_calibration_is_replaced_and_all_else_stays(tmp_path: object) -> None:
    calibration = Calibration(factors={"lookup": 1.25, "dense": 0.75}, memory_gib=0.06, activation_factor=1.5, runs=20)
    calibration = dataclasses.replace(calibration, buffer_factors={"alone": 0.9, "row_wise": 2.5})
    plain = dump_hardware(small_machine())
    text = "# mine\n" + plain.replace("[overheads]", "[calibration]\nruns = 3\n# of tiny steps\n[overheads]")
    if "[calibration]" in plain:
        text = "# mine\n" + plain
    path = f"{tmp_path}/this.toml"
    for _ in range(2):  # a second fit replaces the first
        text = with_calibration(text, calibration)
        assert text.count("[calibration]") == 1 and text.startswith("# mine\n")
        with open(path, "w") as file:
            file.write(text)
        found = read_hardware(path)
        assert found.calibration == calibration
        assert uncalibrated(found) == small_machine()
    assert "# of tiny steps" in text or "[calibration]" in plain
