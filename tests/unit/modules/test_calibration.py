"""Calibrations against NumPy, their extremes, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from modules.calibration import Calibration, Isotonic, Platt, Temperature, calibration_as_json, calibration_of_json

LOGITS = torch.tensor([-100.0, -3.0, -1.0, -0.5, 0.0, 0.25, 2.0, 100.0], dtype=torch.float64)
CURVE = Isotonic(logits=(-1.0, 0.0, 0.5), probabilities=(0.1, 0.2, 0.6))
ALL: list[Calibration] = [Temperature(temperature=2.5), Platt(scale=1.5, shift=-0.25), CURVE]


def test_temperature_divides() -> None:
    assert Temperature(temperature=4.0)(LOGITS).tolist() == (LOGITS / 4).tolist()


def test_platt_scales_and_shifts() -> None:
    np.testing.assert_allclose(Platt(scale=0.5, shift=2.0)(LOGITS).numpy(), LOGITS.numpy() * 0.5 + 2, rtol=1e-15)


def test_isotonic_is_linear_between_knots_and_level_outside() -> None:
    expected = logit(np.interp(LOGITS.numpy(), CURVE.logits, CURVE.probabilities))
    np.testing.assert_allclose(CURVE(LOGITS).numpy(), expected, rtol=1e-13)
    assert expit(CURVE(LOGITS)[[0, -1]].numpy()) == pytest.approx([0.1, 0.6], rel=1e-12)


def test_isotonic_of_one_knot_is_a_constant() -> None:
    one = Isotonic(logits=(0.3,), probabilities=(0.25,))
    assert one(LOGITS).sigmoid().tolist() == pytest.approx([0.25] * len(LOGITS), rel=1e-14)


def test_isotonic_never_falls() -> None:
    draw = np.random.default_rng(1)
    knots = np.sort(draw.normal(size=200))
    curve = Isotonic(logits=tuple(knots), probabilities=tuple(np.sort(draw.uniform(0.01, 0.99, size=200))))
    dense = np.sort(np.concatenate([knots, np.nextafter(knots, -9), np.nextafter(knots, 9), draw.normal(size=5_000)]))
    assert (np.diff(curve(torch.from_numpy(dense)).numpy()) >= -1e-15).all()


@pytest.mark.parametrize("calibration", ALL, ids=lambda one: one.kind)
def test_plain_values_give_it_back(calibration: Calibration) -> None:
    assert calibration_of_json(calibration_as_json(calibration)) == calibration


@pytest.mark.parametrize("calibration", ALL, ids=lambda one: one.kind)
def test_float32_logits_are_widened(calibration: Calibration) -> None:
    assert calibration(LOGITS.float()).dtype == torch.float64


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "beta"}, "kind: 'beta' is not one of temperature, platt, isotonic"),
        ({}, "kind: None is not one of"),
        ({"kind": "temperature"}, "temperature: missing; temperature needs it"),
        ({"kind": "temperature", "temperature": 0.0}, "temperature: 0.0 must be a number above zero"),
        ({"kind": "temperature", "temperature": "1"}, "temperature: '1' is not a number"),
        ({"kind": "temperature", "temperature": True}, "temperature: True is not a number"),
        ({"kind": "platt", "scale": float("nan"), "shift": 0.0}, "scale: nan is not a finite number"),
        ({"kind": "platt", "scale": 1.0, "shift": 0.0, "shft": 1}, "shft: no such key; platt has scale, shift"),
        ({"kind": "isotonic", "logits": [0.0], "probabilities": []}, "probabilities: 0 for 1 logits"),
        ({"kind": "isotonic", "logits": [], "probabilities": []}, "a knot has one of each"),
        ({"kind": "isotonic", "logits": [1.0, 1.0], "probabilities": [0.1, 0.2]}, "logits: 1.0 comes after 1.0"),
        ({"kind": "isotonic", "logits": [1.0, 2.0], "probabilities": [0.3, 0.2]}, "probabilities: 0.2 comes after 0.3"),
        ({"kind": "isotonic", "logits": [1.0, 2.0], "probabilities": [0.0, 0.2]}, "probabilities: 0.0 to 0.2 must lie"),
        ({"kind": "isotonic", "logits": 1.0, "probabilities": [0.2]}, "logits: 1.0 is not a list of numbers"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        calibration_of_json(body)
    assert message in str(refused.value)
