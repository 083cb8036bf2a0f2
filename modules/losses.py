"""MemberLosses: what members are trained for, each by itself or tied to the others.

Shapes: B rows of this rank's batch, M members, H heads of a member. With y the label, z_m the logit and
p_m = sigmoid(z_m) of member m, z the mean logit, p = sigmoid(z), sg a stopped gradient, all means over the rows of the
global batch, and a, d, u the three coefficients, the loss is

    (1 - a) sum_m BCE(p_m, y)  +  a M BCE(p, y)
    + d M sum_m softmin(s)_m mean (p_m - sg(p))^2
    + u   sum_m sum_{j != m} softmax_j(s_j - s_m) mean (p_m - sg(p_j))^2,      s_m = sg(mean(1 - |y - p_m|)).

The second and third line are EKTF's distillation and mutual learning (Li et al., arXiv 2411.16122), M times as large as
published, since the BCE terms are summed here and averaged there. Deviations: the scores s carry no gradient, and no
label is flipped, both of which the authors' code does otherwise.

Of a member with several heads BCE(p_m, y) is the mean of the heads' own, and z_m the mean of their logits. Where its
heads are taught, BCE(p_m, y) stays that of z_m, and in the first line it has the sum of BCE(p_mh, sg(p_m)) over heads h
beside it (Zhu et al., "FINAL", SIGIR 2023, with two heads).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softmin

from modules.bagging import bag_counts
from modules.contracts import EnsembleOutput, over_heads
from modules.ensemble import stack_logits


class MemberLosses(nn.Module):
    """The members' binary cross-entropies, summed over rows with the batch's loss weights, and what ties members.

    In evaluation mode, and with one member, nothing ties: the total is the sum of the members' own losses.

    Args:
        merged_share: From 0, each member's own loss, to 1, M times the loss of the mean logit.
        distillation: Weight of the pull towards the merged prediction.
        mutual: Weight of the pull towards better members.
        bag_seeds: Member index -> seed of its bag. In training each row counts `bag_counts` times in this member's own
            terms; the loss of the mean logit and the scores s are over the rows as they are.
        taught: Indices of the members whose heads are taught their mean.
        mean_over_ranks: Gives the mean over ranks of a small tensor [M + 1] without gradient; called once in each
            training forward with distillation or mutual learning, so all ranks must take part. Not given: one rank.
    """

    def __init__(
        self,
        *,
        merged_share: float = 0.0,
        distillation: float = 0.0,
        mutual: float = 0.0,
        bag_seeds: Mapping[int, int] | None = None,
        taught: Collection[int] = (),
        mean_over_ranks: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.merged_share, self.distillation, self.mutual = merged_share, distillation, mutual
        self.bag_seeds = dict(bag_seeds or {})
        self.taught = frozenset(taught)
        self._mean_over_ranks = mean_over_ranks

    @property
    def ties_members(self) -> bool:
        """Whether a member's gradient depends on the others."""
        return self.merged_share > 0 or self.distillation > 0 or self.mutual > 0

    def forward(
        self,
        logits: list[Tensor],
        labels_B: Tensor,
        loss_weights_B: Tensor,
        part_B: Tensor | None = None,
        row_B: Tensor | None = None,
    ) -> tuple[Tensor, EnsembleOutput]:
        """Gives the loss to differentiate, and the output for metrics.

        A bagged member's loss in the output is the one it is trained on, bag counts included. What taught heads are
        taught is not in it: the output has the loss of the member's prediction, to be compared with other members'.

        Args:
            logits: One tensor [B] per member, or [B, H] of one with several heads.
            labels_B: 0.0 or 1.0.
            loss_weights_B: As in `EnsembleTask`.
            part_B: Index of each row's part, integers; needed with `bag_seeds` in training.
            row_B: Each row's number in its part, integers; likewise.
        """
        weights = [loss_weights_B] * len(logits)
        if self.training and self.bag_seeds:
            assert part_B is not None and row_B is not None, "bagging goes by where the rows are"
            for index, seed in self.bag_seeds.items():
                weights[index] = loss_weights_B * bag_counts(part_B, row_B, seed=seed)
        logits = [logit.float() for logit in logits]
        own = [over_heads(logit) if index in self.taught else logit for index, logit in enumerate(logits)]
        losses = [
            (row_losses(logit, labels_B) * weights_B).sum() for logit, weights_B in zip(own, weights, strict=True)
        ]
        output = EnsembleOutput(stack_logits(logits), torch.stack([loss.detach() for loss in losses]))
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        for index in sorted(self.taught):
            if logits[index].dim() > 1:  # not so in evaluation, and of a member that is stopped or frozen
                total = total + (taught_losses(logits[index]) * weights[index]).sum()
        if not (self.ties_members and self.training and len(logits) > 1):
            return total, output
        logits_BM = torch.stack([over_heads(logit) for logit in logits], dim=1)
        # Padding may hold anything, NaN too.
        labels_B = torch.where(loss_weights_B != 0, labels_B, 0.0)
        if self.merged_share > 0:
            total = self._shared_with_merged(total, logits_BM, labels_B, loss_weights_B)
        if self.distillation > 0 or self.mutual > 0:
            scores_M = self._scores(torch.sigmoid(logits_BM.detach()), labels_B, loss_weights_B)
            total = total + self._pulls(logits_BM, torch.stack(weights, dim=1), scores_M)
        return total, output

    def _shared_with_merged(self, total: Tensor, logits_BM: Tensor, labels_B: Tensor, loss_weights_B: Tensor) -> Tensor:
        losses_B = binary_cross_entropy_with_logits(logits_BM.mean(dim=1), labels_B, reduction="none")
        merged = logits_BM.shape[1] * (losses_B * loss_weights_B).sum()
        # At 1 the members' own losses are left out rather than multiplied by 0, which would cost their backward.
        return merged if self.merged_share == 1 else (1 - self.merged_share) * total + self.merged_share * merged

    def _scores(self, probabilities_BM: Tensor, labels_B: Tensor, loss_weights_B: Tensor) -> Tensor:
        """s [M]: the mean of 1 - |y - p_m| over the global batch, rows counting as in the loss."""
        hits_BM = 1 - (labels_B[:, None] - probabilities_BM).abs()
        means = torch.cat([(hits_BM * loss_weights_B[:, None]).sum(dim=0), loss_weights_B.sum()[None]])
        if self._mean_over_ranks is not None:
            means = self._mean_over_ranks(means)
        # The weights of a whole batch may be 0: then all scores are the same, and what they weigh is 0.
        return means[:-1] / torch.where(means[-1] > 0, means[-1], 1.0)

    def _pulls(self, logits_BM: Tensor, weights_BM: Tensor, scores_M: Tensor) -> Tensor:
        """Distillation and mutual learning."""
        num_members = logits_BM.shape[1]
        merged_B = torch.sigmoid(logits_BM.detach().mean(dim=1))
        apart_BM = torch.sigmoid(logits_BM) - merged_B[:, None]
        squares_BM = apart_BM.square()
        total = torch.zeros_like(scores_M[0])
        if self.distillation > 0:
            worse_M = num_members * softmin(scores_M, dim=0)
            total = total + self.distillation * (worse_M * (squares_BM * weights_BM).sum(dim=0)).sum()
        if self.mutual > 0:
            better_MM = _softmax_of_others(scores_M)
            # sum_j w_mj (a_m - a_j)^2 = a_m^2 - 2 a_m sum_j w_mj a_j + sum_j w_mj a_j^2, since each row of w sums to 1:
            # two products of matrices instead of M^2 columns. Counted from p, the a are small, and so is the rounding.
            others_BM, others_squared_BM = _mixtures(apart_BM.detach(), better_MM)
            distances_BM = squares_BM - 2 * apart_BM * others_BM + others_squared_BM
            total = total + self.mutual * (distances_BM * weights_BM).sum()
        return total


def row_losses(logits: Tensor, labels_B: Tensor) -> Tensor:
    """Each row's binary cross-entropy [B], in nats; of logits [B, H] the mean over the heads' own."""
    if logits.dim() == 1:
        return binary_cross_entropy_with_logits(logits, labels_B, reduction="none")
    labels_BH = labels_B.unsqueeze(1).expand_as(logits)
    return binary_cross_entropy_with_logits(logits, labels_BH, reduction="none").mean(dim=1)


def taught_losses(logits_BH: Tensor) -> Tensor:
    """Each row's sum over heads of the cross-entropy towards the probability of their mean logit [B], in nats.

    No gradient flows through that probability.
    """
    towards_BH = torch.sigmoid(over_heads(logits_BH.detach())).unsqueeze(1).expand_as(logits_BH)
    return binary_cross_entropy_with_logits(logits_BH, towards_BH, reduction="none").sum(dim=1)


def _softmax_of_others(scores_M: Tensor) -> Tensor:
    """[m, j]: softmax over j != m of s_j - s_m, and 0 for j = m; M is at least 2."""
    itself_MM = torch.eye(len(scores_M), dtype=torch.bool, device=scores_M.device)
    return (scores_M[None, :] - scores_M[:, None]).masked_fill(itself_MM, -torch.inf).softmax(dim=1)


def _mixtures(values_BM: Tensor, weights_MM: Tensor) -> tuple[Tensor, Tensor]:
    # Autocast would make these products bf16.
    with torch.autocast(values_BM.device.type, enabled=False):
        return values_BM @ weights_MM.T, values_BM.square() @ weights_MM.T
