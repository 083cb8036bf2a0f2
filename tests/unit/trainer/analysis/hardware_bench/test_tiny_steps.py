"""Tiny steps: layouts tell apart what a step is made of, planted overheads are found, and operations are counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.loader import read_run
from modules import members
from tests.unit.trainer.analysis.hardware_bench.here import QUICK, alone
from trainer.analysis.hardware_bench import tiny_steps
from trainer.analysis.hardware_bench.points import Point
from trainer.analysis.hardware_bench.tiny_steps import LAYOUTS, QUICK_LAYOUTS, fit_overheads, measure_operations


def test_planted_overheads_are_found() -> None:
    def took(size: dict[str, float]) -> float:
        return 1e-6 * (900 + 30 * size["sharded"] + 70 * size["replicas"] + 400 * size["members"])

    points = [Point(what="step", size=layout.size, seconds=(took(layout.size),)) for layout in LAYOUTS]
    points.append(Point(what="operation", size={"operations": 50.0}, seconds=(2e-4,)))
    overheads, (fit,), (remark,) = fit_overheads(points)
    assert (overheads.step_us, overheads.table_us, overheads.replica_us, overheads.op_us) == pytest.approx(
        (900, 30, 70, 4), rel=1e-3
    )
    assert fit.worst_error < 1e-3
    assert "400 us" in remark


@pytest.mark.parametrize("layouts", [LAYOUTS, QUICK_LAYOUTS])
def test_layouts_tell_the_four_apart(layouts: tuple[tiny_steps.StepLayout, ...]) -> None:
    columns = np.array([[1.0, *layout.size.values()] for layout in layouts])
    assert np.linalg.matrix_rank(columns) == 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_the_run_that_its_size_says(layout: tiny_steps.StepLayout) -> None:
    config = read_run(
        layout.text(root="rows", lap_steps=3, laps=2),
        source="a tiny run",
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )
    assert len(config.members) == layout.members
    group = config.tables[layout.tables]
    replicated = [
        name
        for name in tiny_steps.SPARSE_NAMES
        if (group.features[name].placement if name in group.features else group.placement) == "data_parallel"
    ]
    copies = layout.members if layout.tables == "own" else 1
    assert layout.size["replicas"] == copies * len(replicated)
    assert layout.size["sharded"] == copies * (26 - len(replicated))


def test_views_are_no_operations() -> None:
    one = torch.ones(2, 3)
    with tiny_steps._CountedOperations() as counted:
        (one.view(6) + 1).view(2, 3).detach()
        one.mm(one.t())
    assert counted.count == 2  # the sum and the product


def test_operations_are_timed() -> None:
    (point,) = measure_operations(alone(), QUICK)
    assert point.size["operations"] > 3 * tiny_steps._LAYERS
    assert 1e-8 < point.mean_seconds / point.size["operations"] < 1e-2
