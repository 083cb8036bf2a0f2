"""LogitMeter: additive whichever way rows are split, with a bracket that holds the exact AUC."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.metrics.exact import exact_auc, metrics_of_logits
from trainer.metrics.meters import LOGIT_LIMIT, NUM_BINS, LogitMeter, MeteredColumn

CPU = torch.device("cpu")


def metered(
    logits: NDArray[np.floating], labels: NDArray[np.integer], *, cuts: list[int] | None = None
) -> dict[str, MeteredColumn]:
    """Figures after adding the rows in pieces."""
    meter = LogitMeter([f"c{i}" for i in range(logits.shape[1])], device=CPU)
    edges = [0, *(cuts or []), len(labels)]
    for start, stop in zip(edges, edges[1:], strict=False):
        rows = slice(start, stop)
        meter.add(torch.from_numpy(logits[rows]), torch.from_numpy(labels[rows]), torch.ones(stop - start))
    return meter.compute()


def sample(num_rows: int, *, scale: float, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    logits = scale * random.normal(-1, 1, (num_rows, 2))
    return logits, (random.random(num_rows) < 1 / (1 + np.exp(-logits[:, 0] / scale))).astype(np.int64)


@pytest.mark.parametrize("scale", [1e-5, 0.01, 2.0, 50.0, 1e6])
def test_the_bracket_holds_the_exact_auc(scale: float) -> None:
    logits, labels = sample(3_000, scale=scale)
    for index, column in enumerate(metered(logits, labels).values()):
        exact = metrics_of_logits(labels, logits[:, index])
        assert abs(column.metrics.auc - exact.auc) <= column.auc_error + 1e-12
        assert column.metrics.log_loss_nats == pytest.approx(exact.log_loss_nats, rel=1e-12)
        assert column.metrics.calibration == pytest.approx(exact.calibration, rel=1e-12)
        assert column.metrics.ne == pytest.approx(exact.ne, rel=1e-12)
    if scale == 2.0:
        assert column.auc_error < 1e-4


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_bracket_holds_it_for_any_rows(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 20))
    logits = np.array(data.draw(st.lists(st.floats(-40, 40), min_size=size, max_size=size)))[:, None]
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)))
    column = metered(logits, labels)["c0"]
    if labels.all() or not labels.any():
        assert math.isnan(column.metrics.auc) and math.isnan(column.auc_error)
        return
    assert abs(column.metrics.auc - exact_auc(labels, logits[:, 0])) <= column.auc_error + 1e-12


@given(cuts=st.lists(st.integers(0, 200), max_size=5).map(sorted))
@settings(max_examples=25, deadline=None)
def test_figures_add_up_in_any_split(cuts: list[int]) -> None:
    logits, labels = sample(200, scale=2.0)
    whole, pieces = metered(logits, labels), metered(logits, labels, cuts=cuts)
    for name in whole:
        assert pieces[name].metrics.auc == whole[name].metrics.auc
        assert pieces[name].metrics.log_loss_nats == pytest.approx(whole[name].metrics.log_loss_nats, rel=1e-13)


def test_ranks_add_up() -> None:
    logits, labels = sample(101, scale=2.0)
    of_rank, sent = [], []
    for rank in range(3):
        mine = slice(rank, None, 3)
        meter = LogitMeter(["c0", "c1"], device=CPU)
        meter.add(torch.from_numpy(logits[mine]), torch.from_numpy(labels[mine]), torch.ones(len(labels[mine])))
        states: list[torch.Tensor] = []
        meter.reduce(lambda value, states=states: states.append(value.clone()) or value)  # type: ignore[misc]
        of_rank.append(meter)
        sent.append(states)
    summed = iter([sum(values) for values in zip(*sent, strict=True)])
    of_rank[0].reduce(lambda _mine: next(summed))
    whole = metered(logits, labels)
    for name, column in of_rank[0].compute().items():
        assert column.metrics.num_rows == 101
        assert column.metrics.auc == whole[name].metrics.auc
        assert column.metrics.log_loss_nats == pytest.approx(whole[name].metrics.log_loss_nats, rel=1e-13)


def test_masked_rows_do_not_count_whatever_they_hold() -> None:
    logits, labels = sample(50, scale=2.0)
    meter = LogitMeter(["c0", "c1"], device=CPU)
    junk = torch.full((3, 2), math.nan, dtype=torch.float64)
    meter.add(
        torch.cat([torch.from_numpy(logits), junk]),
        torch.cat([torch.from_numpy(labels), torch.zeros(3, dtype=torch.int64)]),
        torch.cat([torch.ones(50), torch.zeros(3)]),
    )
    assert meter.compute() == metered(logits, labels)


def test_logits_beyond_the_histogram_widen_the_bracket() -> None:
    far = LOGIT_LIMIT + 100
    logits = np.array([[far], [far + 1], [-far], [-far - 1]])
    column = metered(logits, np.array([0, 1, 0, 1]))["c0"]
    assert column.metrics.auc == 0.5
    assert column.auc_error == 0.25  # two of four pairs lie in one bin
    assert column.metrics.log_loss_nats == pytest.approx((far + 0 + 0 + far + 1) / 4)


def test_a_bin_is_as_fine_as_promised() -> None:
    step = 2 * LOGIT_LIMIT / NUM_BINS
    apart = metered(np.array([[0.5 * step], [1.5 * step]]), np.array([0, 1]))["c0"]
    assert (apart.metrics.auc, apart.auc_error) == (1.0, 0.0)
    together = metered(np.array([[1.2 * step], [1.8 * step]]), np.array([0, 1]))["c0"]
    assert (together.metrics.auc, together.auc_error) == (0.5, 0.5)


def test_an_empty_meter_has_no_figures() -> None:
    column = LogitMeter(["c0"], device=CPU).compute()["c0"]
    assert column.metrics.num_rows == 0
    assert math.isnan(column.metrics.auc) and math.isnan(column.metrics.log_loss_nats)


def test_a_logit_that_is_not_finite_is_seen_in_the_loss() -> None:
    column = metered(np.array([[math.nan], [1.0]]), np.array([0, 1]))["c0"]
    assert math.isnan(column.metrics.log_loss_nats)
    assert column.metrics.num_rows == 2
