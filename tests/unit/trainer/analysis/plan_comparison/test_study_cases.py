"""The cases of a capacity study: enough of them, spread over what is claimed, told apart, and trainable."""

from __future__ import annotations

import json

import pytest

from tests.support.runs import small_run
from trainer.analysis.plan_comparison.study_cases import WINDOWS, Case, study_cases

CASES = study_cases()


def of(use: str) -> list[Case]:
    return [case for case in CASES if case.use == use]


def test_held_out_cases_span_what_is_claimed() -> None:
    held_out = of("held_out")
    assert len(held_out) >= 24
    assert {case.ranks for case in held_out} == {(1, 2)}
    assert {len(case.kinds) for case in held_out} >= {1, 2, 4, 8}
    assert {case.tables for case in held_out} == {"shared", "own"}
    assert {case.dim for case in held_out} == {8, 16, 32, 64}
    assert {case.batch_size for case in held_out} == {1_024, 2_048, 4_096, 8_192, 16_384}
    assert {case.optimizer for case in held_out} == {"sgd", "adagrad", "rowwise_adagrad"}
    assert {kind for case in held_out for kind in case.kinds} == {"mlp", "dcn_v2", "deepfm", "dlrm"}
    assert of("bytes") and all(case.ranks == (4,) for case in of("bytes"))


def test_no_case_is_both_held_out_and_calibrated_on() -> None:
    def ensemble(case: Case) -> tuple[object, ...]:
        return case.kinds, case.tables, case.dim, case.batch_size, case.optimizer

    assert 8 <= len(of("calibration")) <= 10
    assert not {ensemble(case) for case in of("calibration")} & {ensemble(case) for case in of("held_out")}
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_its_configuration_is_what_it_says(case: Case) -> None:
    config = small_run(text=case.text(root="data", parts=("day_0", "day_1"), window_steps=7))
    assert [member.arch.kind for _, member in config.expanded_members()] == list(case.kinds)
    assert {member.tables for _, member in config.expanded_members()} == {case.tables}
    section = config.table_group(case.tables)
    assert (section.dim, section.optimizer, config.train.batch_size) == (case.dim, case.optimizer, case.batch_size)
    assert config.train.until.steps == 7 * (WINDOWS + 1) and config.train.log_every.steps == 7
    assert case.batch_size % max(case.ranks) == 0
    assert not config.checkpoint.background and config.checkpoint.every.steps == 0
    assert json.dumps(case.words) and str(case.dim) in case.words


def test_more_work_is_taken_to_last_longer() -> None:
    (few,) = (case for case in CASES if case.name.startswith("h02_"))
    (many,) = (case for case in CASES if case.name.startswith("h15_"))
    assert few.rough_step_seconds(ranks=2) < few.rough_step_seconds(ranks=1) < many.rough_step_seconds(ranks=1)
