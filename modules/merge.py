"""Merge rules: member logits to one merged probability per row. Pure functions.

Shapes: B rows, M members. Each rule maps logits [B, M] to probabilities [B] in the logits' dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
