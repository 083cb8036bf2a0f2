"""The merged columns of a prediction file: the merge rule's logit, and its probability.

Legend: n rows of a file, M members of the rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from configs.errors import ChorusError
from modules.merge import MERGED, MergeRule
from trainer.predictions.columns import LOGIT_MERGED

_LARGEST = float(np.finfo(np.float32).max)


def merged_columns(rule: MergeRule, logits_nM: Tensor, *, part: str, first_row: int) -> dict[str, NDArray[np.float32]]:
    """Column -> values [n], float32, in the order of a file's columns.

    Args:
        rule: The merge.
        logits_nM: The logits of its members, float64 and finite.
        part: Whose rows these are, for messages.
        first_row: The first of them, for messages.

    Raises:
        ChorusError: a merged logit is not finite, or beyond float32; names the rule, the part and the row.
    """
    logits = rule.logits(logits_nM).numpy()
    bad = np.flatnonzero(~(np.abs(logits) <= _LARGEST))
    if len(bad):
        raise ChorusError(
            f"merge rule {rule.rule}: merged logit {logits[bad[0]]:g} at row {first_row + bad[0]} of {part}, though its"
            " members' logits are finite; its weights or its calibration are too large, take another merge.rule or"
            " score.merge_file"
        )
    return {
        LOGIT_MERGED: logits.astype(np.float32),
        MERGED: rule.probabilities(logits_nM).float().numpy(),
    }
