"""Ambiguity as identities, correlation and disagreement against numpy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.trainer.analysis.worth.made_rows import made_rows
from trainer.analysis.worth.diversity import diversity


@pytest.mark.parametrize("num_members", [1, 2, 5])
def test_merged_is_the_members_mean_minus_ambiguity(num_members: int) -> None:
    rows = made_rows(num_members=num_members, seed=3)
    found = diversity(rows)
    for one in (found.log_loss, found.squared_error):
        assert one.merged == pytest.approx(one.members_mean - one.ambiguity, abs=1e-12)
        assert (one.distances >= 0).all() and (one.ambiguity > 0) == (num_members > 1)


def test_losses_and_distances_are_those_of_plain_formulas() -> None:
    rows = made_rows(seed=4)
    found = diversity(rows)
    logits, labels = rows.logits.astype(np.float64), rows.labels[:, None]
    chances = 1 / (1 + np.exp(-logits))
    losses = -np.where(labels == 1, np.log(chances), np.log(1 - chances))
    assert found.log_loss.members == pytest.approx(losses.mean(axis=0), abs=1e-12)
    merged = 1 / (1 + np.exp(-logits.mean(axis=1, keepdims=True)))
    divergence = merged * np.log(merged / chances) + (1 - merged) * np.log((1 - merged) / (1 - chances))
    assert found.log_loss.distances == pytest.approx(divergence.mean(axis=0), abs=1e-12)
    assert found.squared_error.merged == pytest.approx(np.mean((chances.mean(axis=1) - rows.labels) ** 2), abs=1e-12)
    assert found.squared_error.members == pytest.approx(((chances - labels) ** 2).mean(axis=0), abs=1e-12)


def test_pairs_are_numpys() -> None:
    rows = made_rows(num_rows=70_000, num_members=4, seed=5)  # more than one stretch
    found = diversity(rows)
    logits = rows.logits.astype(np.float64)
    chances = 1 / (1 + np.exp(-logits))
    assert found.logit_correlation == pytest.approx(np.corrcoef(logits.T), abs=1e-12)
    assert found.residual_correlation == pytest.approx(np.corrcoef((rows.labels[:, None] - chances).T), abs=1e-12)
    apart = [[np.abs(one - other).mean() for other in chances.T] for one in chances.T]
    assert found.disagreement == pytest.approx(np.array(apart), abs=1e-12)
    assert found.mean_probability == pytest.approx(chances.mean(), abs=1e-12)


def test_a_member_that_always_says_the_same_has_no_correlation() -> None:
    rows = made_rows()
    logits = rows.logits.copy(order="F")
    logits[:, 1] = 0.3
    found = diversity(dataclasses.replace(rows, logits=logits)).logit_correlation
    assert np.isnan(found[1]).all() and np.isnan(found[:, 1]).all()
    assert found[0, 0] == 1.0 and found[0, 2] == found[2, 0] > 0
