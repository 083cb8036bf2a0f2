"""What every member is, what goes into it, and what an ensemble gives back.

Shapes: B rows of this rank's batch, N dense features, F id features, D embedding columns, M members, H heads of a
member.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor


class MemberInput(NamedTuple):
    """What a member sees of a batch."""

    dense_BN: Tensor
    """Numeric features, float32 [B, N]."""

    embedded_BFD: Tensor
    """One pooled embedding per id feature, [B, F, D]."""

    first_order_BF: Tensor | None
    """One weight per id feature, [B, F]; only for members that declare `first_order = True`."""


class DenseArch(Protocol):
    """A member: an `nn.Module` from MemberInput to one logit per row, shape [B].

    A row's logit must not depend on the batch's other rows in evaluation.

    In training mode alone it may give [B, H] instead: H predictions, each trained for its own loss. The member's loss
    is then the mean over its heads, so that it counts as one member whatever H, and elsewhere their mean logit stands
    for it, which is what it gives in evaluation. Where its `Config` says so (`teaches_heads`) the heads are taught
    instead: their mean logit is trained for the labels, and each head for the probability of that mean.
    """

    first_order: ClassVar[bool]

    def __call__(self, inputs: MemberInput) -> Tensor:
        """Logits [B]; in training mode [B] or [B, H]."""
        ...


class EnsembleOutput(NamedTuple):
    """What comes out of a step, for metrics; nothing here carries a gradient."""

    logits_BM: Tensor
    """Member logits, in member order, of several heads the mean; rows that only pad the batch hold arbitrary values."""

    losses_M: Tensor
    """Each member's loss on this rank's rows, in nats, scaled as in `EnsembleTask`; a bagged member's with its bag's
    counts, as it is trained; without what its heads are taught."""


def over_heads(logits: Tensor) -> Tensor:
    """A member's logits [B], or [B, H], to [B]: one head's as they are, several heads' mean."""
    return logits if logits.dim() == 1 else logits.mean(dim=1)
