"""Merge rules against NumPy and SciPy, on extremes too, and what a rule refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.special import entr, expit, logit, softmax

from configs.ensemble_schema import FIXED_MERGE_RULES
from modules.calibration import Isotonic, Platt, Temperature
from modules.merge import FITTED_RULES, RULES, MergeRule, merge


def confident(logits: NDArray[np.float64], sharpness: float = 1.0) -> NDArray[np.float64]:
    """Logits weighted by the softmax of minus sharpness times entropy."""
    entropies = entr(expit(logits)) + entr(expit(-logits))
    return (softmax(-sharpness * entropies, axis=1) * logits).sum(axis=1)


REFERENCE: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean_logit": lambda logits: expit(np.mean(logits, axis=1)),
    "mean_probability": lambda logits: np.mean(expit(logits), axis=1),
    "median": lambda logits: expit(np.median(logits, axis=1)),
    "confidence": lambda logits: expit(confident(logits)),
}
logit_columns = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 6)),
    elements=st.one_of(st.floats(-30, 30), st.sampled_from([-1e4, -800.0, -0.0, 0.0, 800.0, 1e4])),
)


def test_every_rule_of_the_configuration_is_there() -> None:
    assert set(RULES) == set(FIXED_MERGE_RULES) == set(REFERENCE)


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


MEMBERS = ("a", "b", "c")
WEIGHTS = (0.2, 0.5, 0.3)
LOGITS = np.random.default_rng(5).normal(size=(101, 3)) * 4
EXAMPLES: dict[str, tuple[MergeRule, NDArray[np.float64]]] = {
    "mean_logit": (MergeRule.fixed("mean_logit", members=MEMBERS), LOGITS.mean(axis=1)),
    "mean_probability": (MergeRule.fixed("mean_probability", members=MEMBERS), logit(expit(LOGITS).mean(axis=1))),
    "median": (MergeRule.fixed("median", members=MEMBERS), np.median(LOGITS, axis=1)),
    "weights": (MergeRule(rule="weights", members=MEMBERS, weights=WEIGHTS), LOGITS @ WEIGHTS),
    "greedy": (MergeRule(rule="greedy", members=MEMBERS, weights=(0.0, 0.75, 0.25)), LOGITS @ (0.0, 0.75, 0.25)),
    "stacking": (
        MergeRule(rule="stacking", members=MEMBERS, weights=(1.2, -0.3, 0.4), intercept=-0.7),
        LOGITS @ (1.2, -0.3, 0.4) - 0.7,
    ),
    "confidence": (MergeRule(rule="confidence", members=MEMBERS, sharpness=3.0), confident(LOGITS, 3.0)),
}


@pytest.mark.parametrize("name", [*RULES, *FITTED_RULES])
def test_a_merge_rule_is_its_definition(name: str) -> None:
    rule, expected = EXAMPLES[name]
    logits = torch.from_numpy(LOGITS)
    np.testing.assert_allclose(rule.logits(logits).numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rule.probabilities(logits).numpy(), expit(expected), rtol=1e-12)
    assert rule.probabilities(logits.float()).dtype == torch.float64


@pytest.mark.parametrize("name", [*RULES, *FITTED_RULES])
def test_a_row_does_not_depend_on_the_rows_beside_it_or_on_the_layout(name: str) -> None:
    """Files are cut by rows, and readers give columns. Sums are equal bit for bit, exponentials to the last digit."""
    rule, _ = EXAMPLES[name]
    logits = torch.from_numpy(LOGITS).float()
    by_column = torch.from_numpy(np.asfortranarray(logits.numpy()))
    pieces = logits.split([1, 2, 3, 7, 88])
    for other in (torch.cat([rule.logits(piece) for piece in pieces]), rule.logits(by_column)):
        exact = name not in ("mean_probability", "confidence")
        torch.testing.assert_close(other, rule.logits(logits), rtol=0 if exact else 1e-13, atol=0 if exact else 1e-14)
    apart = torch.cat([rule.probabilities(piece) for piece in pieces])
    torch.testing.assert_close(apart, rule.probabilities(logits), rtol=1e-14, atol=0)


def test_extreme_logits_do_not_saturate_as_logits() -> None:
    logits = torch.tensor([[100.0, 100.0, 100.0], [-100.0, -100.0, -100.0], [100.0, -100.0, 100.0]])
    for name, (rule, _) in EXAMPLES.items():
        merged = rule.logits(logits)
        assert torch.isfinite(merged).all(), name
        if name != "stacking":
            assert merged[:2].tolist() == pytest.approx([100.0, -100.0], rel=1e-9), name


def test_no_sharpness_is_the_mean_logit() -> None:
    rule = MergeRule(rule="confidence", members=MEMBERS, sharpness=0.0)
    np.testing.assert_allclose(rule.logits(torch.from_numpy(LOGITS)).numpy(), LOGITS.mean(axis=1), rtol=1e-12)


def test_a_surer_member_weighs_more() -> None:
    logits = torch.tensor([[0.0, 4.0]], dtype=torch.float64)
    mild, sharp = (MergeRule(rule="confidence", members=("a", "b"), sharpness=s).logits(logits) for s in (1.0, 50.0))
    assert 2.0 < float(mild) < float(sharp) <= 4.0


@pytest.mark.parametrize("calibration", [Temperature(temperature=2.0), Platt(scale=0.5, shift=1.0)])
def test_a_calibration_acts_on_the_merged_logit(calibration: Temperature | Platt) -> None:
    rule, expected = EXAMPLES["mean_probability"]
    calibrated = MergeRule(rule=rule.rule, members=MEMBERS, calibration=calibration)
    wanted = expit(calibration(torch.from_numpy(expected)).numpy())
    np.testing.assert_allclose(calibrated.probabilities(torch.from_numpy(LOGITS)).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", [*RULES, *FITTED_RULES])
def test_plain_values_give_the_rule_back(name: str) -> None:
    rule, _ = EXAMPLES[name]
    curve = Isotonic(logits=(-1.0, 1 / 3), probabilities=(0.1, 0.2))
    for one in (
        rule,
        MergeRule.of_json({**rule.as_json(), "calibration": {"kind": "platt", "scale": 0.1, "shift": 3}}),
    ):
        assert MergeRule.of_json(one.as_json()) == one
    body = {**rule.as_json(), "calibration": {"kind": "isotonic", "logits": [-1.0, 1 / 3], "probabilities": [0.1, 0.2]}}
    assert MergeRule.of_json(body).calibration == curve


def body(**changes: Any) -> dict[str, Any]:
    """A sound rule's plain values with changes; None removes a key."""
    whole = {"rule": "weights", "members": ["a", "b"], "weights": [0.5, 0.5], **changes}
    return {key: value for key, value in whole.items() if value is not None}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (body(rule="best"), "rule: 'best' is not one of mean_logit,"),
        (body(rule=None), "rule: missing"),
        (body(members=None), "members: missing"),
        (body(members=["a", "a"]), "members: 'a' is named twice"),
        (body(members=[], weights=[]), "members: none"),
        (body(members="ab"), "members: 'ab' is not a list of names"),
        (body(weights=[1.0]), "weights: 1 for 2 members; weights needs one for each"),
        (body(weights=None), "weights: 0 for 2 members"),
        (body(weights=[float("nan"), 0.5]), "weights: nan is not a finite number"),
        (body(weights=["x", 0.5]), "weights: 'x' is not a number"),
        (body(weights=[-0.5, 1.5]), "weights: -0.5 is negative"),
        (body(weights=[0.5, 0.6]), "weights: they add up to 1.1; of weights they must add up to 1"),
        (body(rule="stacking", weights=[1e308, -1e308]), "weights: 1e+308 is out of all proportion to logits"),
        (body(rule="stacking", intercept=-2e6), "intercept: -2000000.0 is out of all proportion"),
        (
            body(calibration={"kind": "platt", "scale": 1e300, "shift": 0.0}),
            "calibration.scale: 1e+300 is out of all proportion",
        ),
        (body(rule="mean_logit"), "weights: 2 for 2 members; mean_logit has none, remove them"),
        (body(intercept=0.5), "intercept: 0.5 does not fit weights"),
        (body(sharpness=2.0), "sharpness: weights has none"),
        (body(rule="confidence", weights=None, sharpness=-1.0), "sharpness: -1.0 must be a number from zero up"),
        (body(weight=[1.0]), "weight: no such key; the keys are rule, members, weights,"),
        (body(calibration=3), "calibration: 3 is not a table"),
        (body(calibration={"kind": "platt", "scale": 1.0}), "calibration.shift: missing"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        MergeRule.of_json(bad)
    assert message in str(refused.value)
