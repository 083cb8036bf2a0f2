"""Merge rules against NumPy and SciPy, on extremes too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.special import expit

from configs.ensemble_schema import MERGE_RULES_NOW
from modules.merge import RULES, merge

REFERENCE: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean_logit": lambda logits: expit(np.mean(logits, axis=1)),
    "mean_probability": lambda logits: np.mean(expit(logits), axis=1),
    "median": lambda logits: expit(np.median(logits, axis=1)),
}
logit_columns = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 6)),
    elements=st.one_of(st.floats(-30, 30), st.sampled_from([-1e4, -800.0, -0.0, 0.0, 800.0, 1e4])),
)


def test_every_rule_of_the_configuration_is_there() -> None:
    assert set(RULES) == set(MERGE_RULES_NOW) == set(REFERENCE)


@pytest.mark.parametrize("rule", sorted(RULES))
@given(logits=logit_columns)
@settings(max_examples=60, deadline=None)
def test_a_rule_is_its_definition(rule: str, logits: NDArray[np.float64]) -> None:
    merged = merge(torch.from_numpy(logits), rule=rule).numpy()
    assert merged.shape == (len(logits),)
    np.testing.assert_allclose(merged, REFERENCE[rule](logits), rtol=1e-10, atol=1e-300)
    assert ((merged >= 0) & (merged <= 1)).all()


@pytest.mark.parametrize("rule", sorted(RULES))
@given(logits=logit_columns, seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_the_order_of_members_does_not_matter(rule: str, logits: NDArray[np.float64], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(logits, axis=1)
    first, second = (merge(torch.from_numpy(x), rule=rule).numpy() for x in (logits, shuffled))
    np.testing.assert_allclose(first, second, rtol=1e-9)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_stays_and_saturation_is_exact(rule: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, 1e4], [-1e4, -1e4], [5e3, -5e3], [0.0, 0.0]], dtype=dtype)
    merged = merge(logits, rule=rule)
    assert merged.dtype == dtype
    assert merged.tolist() == [1.0, 0.0, 0.5, 0.5]


@pytest.mark.parametrize("rule", sorted(RULES))
def test_one_member_is_merged_into_itself(rule: str) -> None:
    logits = torch.linspace(-20, 20, 41, dtype=torch.float64)
    torch.testing.assert_close(merge(logits[:, None], rule=rule), torch.sigmoid(logits), rtol=1e-14, atol=0)


def test_the_rules_differ() -> None:
    logits = torch.tensor([[0.0, 0.1, 6.0]], dtype=torch.float64)
    values = {rule: merge(logits, rule=rule).item() for rule in RULES}
    assert values["median"] < values["mean_probability"] < values["mean_logit"]


def test_an_unknown_rule_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="mode"):
        merge(torch.zeros(1, 1), rule="mode")
