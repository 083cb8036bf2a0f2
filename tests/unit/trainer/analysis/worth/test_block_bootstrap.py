"""The block bootstrap: figures, coverage, agreement with DeLong, neighbours that are alike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.trainer.analysis.worth.made_rows import made_rows
from trainer.analysis.intervals import auc_difference, auc_estimate
from trainer.analysis.worth.block_bootstrap import (
    Drawn,
    Replicates,
    draw_blocks,
    figures_of_column,
    simultaneous_half_widths,
)
from trainer.analysis.worth.study_rows import StudyRows
from trainer.metrics.exact import LogitFigures, metrics_of_logits


def figures(rows: StudyRows, replicates: Replicates, member: int = 0) -> dict[str, Drawn]:
    of_rows = LogitFigures.of(rows.labels, rows.logits[:, member])
    losses, chances = of_rows.log_loss_nats, of_rows.probability
    return dict(
        figures_of_column(rows, replicates, losses=losses, probabilities=chances, scores=rows.logits[:, member])
    )


def test_values_are_the_exact_figures() -> None:
    rows = made_rows()
    found = figures(rows, draw_blocks(len(rows.block_starts), seed=1, num_replicates=10))
    exact = metrics_of_logits(rows.labels, rows.logits[:, 0])
    for name, drawn in found.items():
        assert drawn.value == pytest.approx(getattr(exact, name), abs=1e-12)


@pytest.mark.parametrize("levels", [1, None])  # of a whole logit; None: all differ
def test_a_replicate_is_the_figure_of_its_rows(levels: int | None) -> None:
    rows = made_rows(num_rows=400, block_rows=9)  # the last block is short
    if levels:
        rows = dataclasses.replace(rows, logits=np.asfortranarray(np.round(rows.logits * levels) / levels))
    replicates = draw_blocks(len(rows.block_starts), seed=1, num_replicates=5)
    assert (replicates.counts.sum(axis=1) == len(rows.block_starts)).all()
    found = figures(rows, replicates)
    for number, counts in enumerate(replicates.counts.astype(int)):
        taken = np.repeat(np.arange(400), counts[rows.block_of_rows()])
        exact = metrics_of_logits(rows.labels[taken], rows.logits[taken, 0])
        for name, drawn in found.items():
            about = 2e-4 if name == "auc" and levels is None else 1e-12  # AUC's deviation comes from bins
            assert drawn.replicates[number] == pytest.approx(getattr(exact, name), abs=about)


def test_standard_errors_agree_with_delong_and_with_the_normal_ones_where_rows_are_independent() -> None:
    rows = made_rows(num_rows=6_000, num_members=2, block_rows=20)
    replicates = draw_blocks(len(rows.block_starts), seed=2)
    first, second = (figures(rows, replicates, member) for member in (0, 1))
    scores = rows.logits.astype(np.float64)
    delong = auc_difference(rows.labels, scores[:, 0], scores[:, 1])
    paired = first["auc"] - second["auc"]
    assert paired.value == pytest.approx(delong.value, abs=1e-12)
    assert paired.standard_error == pytest.approx(delong.standard_error, rel=0.12)
    assert first["auc"].standard_error == pytest.approx(
        auc_estimate(rows.labels, scores[:, 0]).standard_error, rel=0.12
    )
    losses = LogitFigures.of(rows.labels[:, None], rows.logits).log_loss_nats
    wanted = np.std(losses[:, 0] - losses[:, 1]) / np.sqrt(rows.num_rows)
    difference = first["log_loss_nats"] - second["log_loss_nats"]
    assert difference.standard_error == pytest.approx(wanted, rel=0.12)
    interval = difference.interval()
    assert interval.low == pytest.approx(difference.value - 1.96 * wanted, abs=0.4 * wanted)
    assert interval.high == pytest.approx(difference.value + 1.96 * wanted, abs=0.4 * wanted)


@pytest.mark.parametrize("alike", [1, 20])
def test_intervals_cover_the_truth_as_often_as_they_say_even_where_neighbours_are_alike(alike: int) -> None:
    draw = np.random.default_rng(3)
    covered = 0
    for number in range(300):
        days = np.repeat(draw.normal(size=2_000 // alike), alike)  # neighbours share it
        rows = dataclasses.replace(made_rows(num_rows=40, block_rows=20), labels=np.zeros(2_000, np.int8))
        rows = dataclasses.replace(rows, block_starts=np.arange(0, 2_000, 20))
        replicates = draw_blocks(100, seed=number, num_replicates=300)
        means = replicates.sums(rows.by_block(days)) / 2_000
        interval = Drawn(value=float(days.mean()), replicates=means).interval()
        covered += interval.low <= 0.0 <= interval.high
    assert 0.90 < covered / 300 < 0.985


def test_simultaneous_widths_hold_together() -> None:
    draw, missed, alone = np.random.default_rng(5), 0, 0
    for number in range(200):
        samples = draw.normal(size=(8, 60))
        counts = draw_blocks(60, seed=number, num_replicates=300)
        drawn = [Drawn(value=float(one.mean()), replicates=counts.sums(one) / 60) for one in samples]
        widths = simultaneous_half_widths(drawn)
        missed += any(abs(one.value) > width for one, width in zip(drawn, widths, strict=True))
        alone += any(abs(one.value) > 1.96 * one.standard_error for one in drawn)
    assert missed / 200 < 0.12 < alone / 200


def test_what_never_moves_has_no_width() -> None:
    still = Drawn(value=1.0, replicates=np.ones(50))
    moving = Drawn(value=0.0, replicates=np.random.default_rng(0).normal(size=50))
    assert simultaneous_half_widths([still, still]) == [0.0, 0.0]
    widths = simultaneous_half_widths([still, moving])
    assert widths[0] == 0.0 < widths[1]


def test_the_same_seed_draws_the_same_blocks() -> None:
    assert np.array_equal(draw_blocks(50, seed=1).counts, draw_blocks(50, seed=1).counts)
    assert not np.array_equal(draw_blocks(50, seed=1).counts, draw_blocks(50, seed=2).counts)


def test_replicates_without_a_positive_are_left_out() -> None:
    labels = np.zeros(600, np.int8)
    labels[:8] = 1  # all in two blocks
    rows = dataclasses.replace(made_rows(), labels=labels)
    found = figures(rows, draw_blocks(len(rows.block_starts), seed=1))
    assert np.isnan(found["auc"].replicates).any()
    interval = found["auc"].interval()
    assert interval.low <= interval.value <= interval.high
