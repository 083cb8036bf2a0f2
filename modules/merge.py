"""Merge rules: member logits to one merged probability per row. Pure functions.

Shapes: B rows, M members. Each rule maps logits [B, M] to probabilities [B] in the logits' dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def mean_logit(logits_BM: Tensor) -> Tensor:
    """The sigmoid of the mean logit: the renormalised geometric mean of the members' odds."""
    return torch.sigmoid(logits_BM.mean(dim=1))


def mean_probability(logits_BM: Tensor) -> Tensor:
    """The mean of the members' probabilities."""
    return torch.sigmoid(logits_BM).mean(dim=1)


def median(logits_BM: Tensor) -> Tensor:
    """The sigmoid of the median logit; with an even number of members, of the middle two's mean."""
    return torch.sigmoid(torch.quantile(logits_BM, 0.5, dim=1))


MERGED = "merged"  # what the merged prediction is called beside the members

RULES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean_logit": mean_logit,
    "mean_probability": mean_probability,
    "median": median,
}


def merge(logits_BM: Tensor, *, rule: str) -> Tensor:
    """Merged probability [B] under the named rule.

    Raises:
        KeyError: the rule is not one of `RULES`.
    """
    return RULES[rule](logits_BM)


@dataclass(frozen=True, kw_only=True)
class MergeRule:
    """A merge rule ready to be applied: its name, the members that it is for, and what was fitted."""

    rule: str
    members: tuple[str, ...]  # whose logits it takes, in this order

    @staticmethod
    def fixed(rule: str, *, members: Sequence[str]) -> MergeRule:
        """A rule of `RULES`, which needs no fit."""
        assert rule in RULES, rule
        return MergeRule(rule=rule, members=tuple(members))

    def probabilities(self, logits_BM: Tensor) -> Tensor:
        """Merged probability [B], float64, of logits [B, M] whose columns are `members`."""
        assert logits_BM.shape[1] == len(self.members), (logits_BM.shape, self.members)
        return RULES[self.rule](logits_BM.double())

    def as_json(self) -> dict[str, Any]:
        """Plain values, as in a merge.toml and in the manifest of predictions."""
        return {"rule": self.rule, "members": list(self.members)}
