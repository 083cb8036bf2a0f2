"""Merge rules: member logits to one merged probability per row. Pure functions.

Members' columns are combined one after the other, in their order, so how the logits lie in memory changes no sum.
Exponentials may differ in the last of float64's digits with a row's place in a batch.

Shapes: B rows, M members.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from modules.calibration import Calibration, Platt, calibration_as_json, calibration_of_json, number, numbers

MERGED = "merged"  # what the merged prediction is called beside the members
SUM_TOLERANCE = 1e-9  # how far weights that should add up to 1 may be from it
LARGEST_FACTOR = 1e6  # of weights, intercept and calibration as plain values: larger ones overflow, or nearly

FITTED_RULES = ("weights", "greedy", "stacking")  # mean something once their weights are fitted
_KEYS = ("rule", "members", "weights", "intercept", "sharpness", "calibration")


def mean_logit(logits_BM: Tensor) -> Tensor:
    """The sigmoid of the mean logit: the renormalised geometric mean of the members' odds."""
    return torch.sigmoid(_mean(_columns(logits_BM)))


def mean_probability(logits_BM: Tensor) -> Tensor:
    """The mean of the members' probabilities."""
    return _mean([torch.sigmoid(logits_B) for logits_B in _columns(logits_BM)])


def median(logits_BM: Tensor) -> Tensor:
    """The sigmoid of the median logit; with an even number of members, of the middle two's mean."""
    return torch.sigmoid(_median_logit(logits_BM))


def confidence(logits_BM: Tensor) -> Tensor:
    """The sigmoid of the logits weighted by confidence, see `confident_logit`, with sharpness 1."""
    return torch.sigmoid(confident_logit(logits_BM, sharpness=1.0))


RULES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean_logit": mean_logit,
    "mean_probability": mean_probability,
    "median": median,
    "confidence": confidence,
}


def merge(logits_BM: Tensor, *, rule: str) -> Tensor:
    """Merged probability [B] under the named rule, in the logits' dtype.

    Raises:
        KeyError: the rule is not one of `RULES`.
    """
    return RULES[rule](logits_BM)


def weighted_logit(logits_BM: Tensor, weights: Sequence[float]) -> Tensor:
    """The sum over the members of weight times logit, [B]."""
    return _sum([weight * logits_B for weight, logits_B in zip(weights, _columns(logits_BM), strict=True)])


def confident_logit(logits_BM: Tensor, *, sharpness: float) -> Tensor:
    """The mean of the logits, each weighted by how sure its member is of this row, [B].

    Member m's weight in a row is exp(-s h_m) over the sum of that over the members, h_m = -p ln p - (1-p) ln(1-p)
    the entropy of its probability p in nats and s the sharpness: a softmax of negative entropy, as CETNet fuses its
    models (Liu et al. 2024, arXiv 2411.13700). With s = 0 it is the mean logit.
    """
    columns = _columns(logits_BM)
    heats = [-sharpness * _entropy_nats(logits_B) for logits_B in columns]
    hottest = reduce(torch.maximum, heats)
    shares = [torch.exp(heat - hottest) for heat in heats]
    return _sum([share * logits_B for share, logits_B in zip(shares, columns, strict=True)]) / _sum(shares)


@dataclass(frozen=True, kw_only=True)
class MergeRule:
    """A merge rule ready to be applied: its name, the members that it is for, and what was fitted.

    mean_logit, mean_probability, median: as the functions of that name.
    confidence: `confident_logit` with `sharpness`.
    weights, greedy: the logits' weighted sum; weights are not negative and add up to 1.
    stacking: the logits' weighted sum plus `intercept`; weights are free.

    Members of weight 0 stay listed: their columns are asked for, and change nothing. A calibration acts on the merged
    logit.

    Raises:
        ValueError: "key: what is wrong", where values do not fit the rule.
    """

    rule: str
    members: tuple[str, ...]  # whose logits it takes, in this order
    weights: tuple[float, ...] = ()  # a member each, for weights, greedy and stacking
    intercept: float = 0.0  # of stacking
    sharpness: float = 1.0  # of confidence
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        object.__setattr__(self, "weights", tuple(self.weights))
        if self.rule not in (*RULES, *FITTED_RULES):
            raise ValueError(f"rule: {self.rule!r} is not one of {', '.join((*RULES, *FITTED_RULES))}")
        doubled = [name for name, count in Counter(self.members).items() if count > 1]
        if not self.members or doubled:
            raise ValueError(f"members: {f'{doubled[0]!r} is named twice' if doubled else 'none'}; name each once")
        self._check_weights()
        if not math.isfinite(self.intercept) or (self.intercept and self.rule != "stacking"):
            raise ValueError(f"intercept: {self.intercept!r} does not fit {self.rule}; stacking has a finite one")
        if not (math.isfinite(self.sharpness) and self.sharpness >= 0):
            raise ValueError(f"sharpness: {self.sharpness!r} must be a number from zero up")
        if self.sharpness != 1.0 and self.rule != "confidence":
            raise ValueError(f"sharpness: {self.rule} has none; remove it")

    def _check_weights(self) -> None:
        wanted = len(self.members) if self.rule in FITTED_RULES else 0
        if len(self.weights) != wanted:
            raise ValueError(
                f"weights: {len(self.weights)} for {len(self.members)} members;"
                f" {self.rule} {'needs one for each' if wanted else 'has none, remove them'}"
            )
        numbers("weights", self.weights)
        if self.rule in ("weights", "greedy"):
            bad = [weight for weight in self.weights if weight < 0]
            if bad:
                raise ValueError(f"weights: {bad[0]!r} is negative, which {self.rule} does not have")
            if abs(math.fsum(self.weights) - 1.0) > SUM_TOLERANCE:
                raise ValueError(
                    f"weights: they add up to {math.fsum(self.weights)!r}; of {self.rule} they must add up to 1"
                )

    @staticmethod
    def fixed(rule: str, *, members: Sequence[str]) -> MergeRule:
        """A rule of `RULES`, which needs no fit."""
        assert rule in RULES, rule
        return MergeRule(rule=rule, members=tuple(members))

    def probabilities(self, logits_BM: Tensor) -> Tensor:
        """Merged probability [B], float64, of logits [B, M] whose columns are `members`."""
        if self.calibration is None and self.rule == "mean_probability":
            self._check_columns(logits_BM)
            return mean_probability(logits_BM.double())
        return torch.sigmoid(self.logits(logits_BM))

    def logits(self, logits_BM: Tensor) -> Tensor:
        """The logit of the merged probability [B], float64; it does not saturate as a probability does."""
        merged = self.uncalibrated_logits(logits_BM)
        return merged if self.calibration is None else self.calibration(merged)

    def uncalibrated_logits(self, logits_BM: Tensor) -> Tensor:
        """The merged logit [B], float64, before the calibration."""
        self._check_columns(logits_BM)
        wide = logits_BM.double()
        if self.rule == "mean_logit":
            return _mean(_columns(wide))
        if self.rule == "mean_probability":
            return _mean_probability_logit(wide)
        if self.rule == "median":
            return _median_logit(wide)
        if self.rule == "confidence":
            return confident_logit(wide, sharpness=self.sharpness)
        return weighted_logit(wide, self.weights) + self.intercept

    def _check_columns(self, logits_BM: Tensor) -> None:
        assert logits_BM.shape[1] == len(self.members), (logits_BM.shape, self.members)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as in a merge.toml and in the manifest of predictions."""
        body: dict[str, Any] = {"rule": self.rule, "members": list(self.members)}
        if self.rule in FITTED_RULES:
            body["weights"] = list(self.weights)
        if self.rule == "stacking":
            body["intercept"] = self.intercept
        if self.rule == "confidence":
            body["sharpness"] = self.sharpness
        if self.calibration is not None:
            body["calibration"] = calibration_as_json(self.calibration)
        return body

    @staticmethod
    def of_json(body: Mapping[str, Any]) -> MergeRule:
        """The rule of plain values, as `as_json` gives them.

        Raises:
            ValueError: "key: what is wrong", for an unknown key, a missing one, or a value that does not fit.
        """
        for key in body:
            if key not in _KEYS:
                raise ValueError(f"{key}: no such key; the keys are {', '.join(_KEYS)}")
        for key in ("rule", "members"):
            if key not in body:
                raise ValueError(f"{key}: missing")
        members, calibration = body["members"], body.get("calibration")
        if not isinstance(members, (list, tuple)) or not all(isinstance(name, str) for name in members):
            raise ValueError(f"members: {members!r} is not a list of names")
        if calibration is not None and not isinstance(calibration, Mapping):
            raise ValueError(f"calibration: {calibration!r} is not a table of its values")
        try:
            calibrated = None if calibration is None else calibration_of_json(calibration)
        except ValueError as error:
            raise ValueError(f"calibration.{error}") from None
        weights = numbers("weights", body.get("weights", ()))
        intercept = number("intercept", body.get("intercept", 0.0))
        _refuse_large("weights", weights)
        _refuse_large("intercept", (intercept,))
        if isinstance(calibrated, Platt):
            _refuse_large("calibration.scale", (calibrated.scale,))
            _refuse_large("calibration.shift", (calibrated.shift,))
        return MergeRule(
            rule=body["rule"],
            members=tuple(members),
            weights=weights,
            intercept=intercept,
            sharpness=number("sharpness", body.get("sharpness", 1.0)),
            calibration=calibrated,
        )


def _refuse_large(key: str, values: Sequence[float]) -> None:
    large = [value for value in values if abs(value) > LARGEST_FACTOR]
    if large:
        raise ValueError(f"{key}: {large[0]!r} is out of all proportion to logits; from -1e6 to 1e6 is taken")


def _columns(logits_BM: Tensor) -> list[Tensor]:
    """A contiguous column [B] for each member."""
    return [logits_B.contiguous() for logits_B in logits_BM.unbind(dim=1)]


def _sum(columns: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, columns)


def _mean(columns: Sequence[Tensor]) -> Tensor:
    return _sum(columns) / len(columns)


def _median_logit(logits_BM: Tensor) -> Tensor:
    members = logits_BM.shape[1]
    ordered = logits_BM.sort(dim=1).values
    return _mean(_columns(ordered[:, (members - 1) // 2 : members // 2 + 1]))


def _mean_probability_logit(logits_BM: Tensor) -> Tensor:
    """ln(mean p) - ln(mean (1-p)), where neither is lost beside 1."""
    columns = _columns(logits_BM)
    yes, no = ([logsigmoid(sign * logits_B) for logits_B in columns] for sign in (1.0, -1.0))
    return reduce(torch.logaddexp, yes) - reduce(torch.logaddexp, no)


def _entropy_nats(logits_B: Tensor) -> Tensor:
    """Entropy of the probability, from the logit: ln(1 + e^-|l|) + |l| / (1 + e^|l|)."""
    size = logits_B.abs()
    return torch.log1p(torch.exp(-size)) + size * torch.sigmoid(-size)
