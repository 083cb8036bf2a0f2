"""Calibrations: what maps a merged logit to a better calibrated one. Pure functions of one column.

Shapes: B rows, K knots. Each maps logits [B] to logits [B], float64, and is fitted elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """logit / temperature (Guo et al., ICML 2017): the order of the rows stays."""

    kind: ClassVar[str] = "temperature"
    temperature: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature: {self.temperature!r} must be a number above zero")

    def __call__(self, logits_B: Tensor) -> Tensor:
        """Calibrated logits [B]."""
        return logits_B.double() / self.temperature


@dataclass(frozen=True, kw_only=True)
class Platt:
    """scale * logit + shift (Platt, 1999): with a scale above zero the order of the rows stays."""

    kind: ClassVar[str] = "platt"
    scale: float
    shift: float

    def __post_init__(self) -> None:
        _refuse_infinite("scale", [self.scale])
        _refuse_infinite("shift", [self.shift])

    def __call__(self, logits_B: Tensor) -> Tensor:
        """Calibrated logits [B]."""
        return logits_B.double() * self.scale + self.shift


@dataclass(frozen=True, kw_only=True)
class Isotonic:
    """A rising curve from logit to probability (Zadrozny & Elkan, KDD 2002), linear between its knots.

    Outside the first and the last knot it is level. Where it is level, rows become equal that were not.
    """

    kind: ClassVar[str] = "isotonic"
    logits: tuple[float, ...]  # [K], rising
    probabilities: tuple[float, ...]  # [K], none falling, in (0, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", tuple(self.logits))
        object.__setattr__(self, "probabilities", tuple(self.probabilities))
        _refuse_infinite("logits", self.logits)
        _refuse_infinite("probabilities", self.probabilities)
        if not self.logits or len(self.logits) != len(self.probabilities):
            raise ValueError(
                f"probabilities: {len(self.probabilities)} for {len(self.logits)} logits; a knot has one of each"
            )
        for low, high in zip(self.logits, self.logits[1:], strict=False):
            if not low < high:
                raise ValueError(f"logits: {high!r} comes after {low!r}; knots must rise")
        for low, high in zip(self.probabilities, self.probabilities[1:], strict=False):
            if low > high:
                raise ValueError(f"probabilities: {high!r} comes after {low!r}; the curve must not fall")
        if not (self.probabilities[0] > 0.0 and self.probabilities[-1] < 1.0):
            raise ValueError(
                f"probabilities: {self.probabilities[0]!r} to {self.probabilities[-1]!r} must lie between 0 and 1,"
                " without them"
            )

    def __call__(self, logits_B: Tensor) -> Tensor:
        """Calibrated logits [B]."""
        at = torch.tensor(self.logits, dtype=torch.float64, device=logits_B.device)
        values = torch.tensor(self.probabilities, dtype=torch.float64, device=logits_B.device)
        logits = logits_B.double()
        if len(at) == 1:
            return torch.logit(values).expand_as(logits).clone()
        above = torch.searchsorted(at, logits.contiguous(), right=True).clamp(1, len(at) - 1)
        share = ((logits - at[above - 1]) / (at[above] - at[above - 1])).clamp(0.0, 1.0)
        # lerp gives both ends exactly, so the curve does not fall by a rounding where two pieces meet.
        return torch.logit(torch.lerp(values[above - 1], values[above], share))


Calibration = Temperature | Platt | Isotonic

CALIBRATIONS: Mapping[str, type[Temperature] | type[Platt] | type[Isotonic]] = {
    one.kind: one for one in (Temperature, Platt, Isotonic)
}


def calibration_as_json(calibration: Calibration) -> dict[str, Any]:
    """Plain values, which `calibration_of_json` reads again."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(calibration).items()}
    return {"kind": calibration.kind, **plain}


def calibration_of_json(body: Mapping[str, Any]) -> Calibration:
    """The calibration of plain values.

    Raises:
        ValueError: "key: what is wrong".
    """
    kind = body.get("kind")
    if not isinstance(kind, str) or kind not in CALIBRATIONS:
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(CALIBRATIONS)}")
    of_kind = CALIBRATIONS[kind]
    known = {field.name: field.type for field in fields(of_kind)}
    for key in body:
        if key != "kind" and key not in known:
            raise ValueError(f"{key}: no such key; {kind} has {', '.join(known)}")
    values: dict[str, Any] = {}
    for key, annotation in known.items():
        if key not in body:
            raise ValueError(f"{key}: missing; {kind} needs it")
        values[key] = numbers(key, body[key]) if "tuple" in str(annotation) else number(key, body[key])
    return of_kind(**values)


def number(key: str, value: object) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key}: {value!r} is not a number")
    _refuse_infinite(key, [float(value)])
    return float(value)


def numbers(key: str, values: object) -> tuple[float, ...]:
    """A list of finite numbers.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{key}: {values!r} is not a list of numbers")
    return tuple(number(key, value) for value in values)


def _refuse_infinite(key: str, values: Sequence[float]) -> None:
    bad = [value for value in values if not math.isfinite(value)]
    if bad:
        raise ValueError(f"{key}: {bad[0]!r} is not a finite number")
