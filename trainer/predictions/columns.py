"""Columns of a prediction file, in order.

    part                 string, dictionary encoded
    row                  int64, 0-based among the accepted rows of the part
    label                int8; null where the log has none
    NAME                 a kept column, as it was
    logit_MEMBER         float32, or float16
    probability_MEMBER   float32, where asked for
    logit_merged         float32, the logit of the merged probability, which does not saturate
    merged               float32, the merged probability

With several checkpoints MEMBER is LABEL_MEMBER, where LABEL is what the checkpoint was called.
"""

from __future__ import annotations

from modules.merge import MERGED

PART = "part"
ROW = "row"
LABEL = "label"
_LOGIT_PREFIX = "logit_"
_PROBABILITY_PREFIX = "probability_"


def logit_column(member: str) -> str:
    """The column of a member's logits."""
    return f"{_LOGIT_PREFIX}{member}"


def probability_column(member: str) -> str:
    """The column of a member's probabilities."""
    return f"{_PROBABILITY_PREFIX}{member}"


LOGIT_MERGED = logit_column(MERGED)


def is_reserved(name: str) -> bool:
    """Whether a kept column must not have this name."""
    return name in (PART, ROW, LABEL, MERGED) or name.startswith((_LOGIT_PREFIX, _PROBABILITY_PREFIX))
