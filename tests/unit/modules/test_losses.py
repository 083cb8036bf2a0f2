"""MemberLosses against loops over rows and members in float64, and what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from modules.bagging import bag_counts
from modules.losses import MemberLosses

TIES = [
    {"merged_share": 0.3},
    {"merged_share": 1.0},
    {"distillation": 1.0},
    {"mutual": 0.7},
    {"merged_share": 0.4, "distillation": 0.5, "mutual": 2.0},
    {"merged_share": 1.0, "distillation": 0.5, "mutual": 2.0},
]


@dataclass
class Rows:
    """Rows of a batch, those behind `count` padding that holds nonsense."""

    logits: list[Tensor]
    labels: Tensor
    weights: Tensor

    def of(self, losses: MemberLosses, **places: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The total, and its gradient at each member's logits (zeros where there is none)."""
        leaves = [logit.clone().requires_grad_() for logit in self.logits]
        total, _ = losses(leaves, self.labels, self.weights, *places.values())
        gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        return total.detach(), list(gradients)


def rows(
    num_members: int, *, count: int = 9, padding: int = 3, seed: int = 0, weighted: bool = False, heads: int = 0
) -> Rows:
    """With heads, every second member has that many."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, num_members, generator=random)
    labels = (torch.rand(count, generator=random) > 0.6).float()
    weights = torch.rand(count, generator=random) * 3 if weighted else torch.ones(count)
    of_members = list(torch.cat([logits, torch.full((padding, num_members), 55.0)]).unbind(dim=1))
    for member in range(1, num_members, 2) if heads else ():
        apart = 2 * torch.randn(count + padding, heads, generator=random)
        of_members[member] = of_members[member][:, None] + apart
    return Rows(
        logits=of_members,
        labels=torch.cat([labels, torch.full((padding,), 7.0)]),
        weights=torch.cat([weights / count, torch.zeros(padding)]),
    )


def plain_total(
    logits: list[Tensor],
    given: Rows,
    *,
    merged_share: float = 0.0,
    distillation: float = 0.0,
    mutual: float = 0.0,
    bags: dict[int, list[float]] | None = None,
    taught: Collection[int] = (),
) -> Tensor:
    """The published formula, its mean over members times their number; loops over real rows, in float64.

    Of heads the own losses' mean, and the mean logit in all that ties members; of taught ones FINAL's loss.
    """
    heads = [[z] if z.dim() == 1 else list(z.unbind(dim=1)) for z in logits]
    logits = [sum(of_member) / len(of_member) for of_member in heads]  # type: ignore[misc]
    real = [row for row, weight in enumerate(given.weights.tolist()) if weight > 0]
    weight = {row: given.weights[row].item() for row in real}
    label = {row: given.labels[row].item() for row in real}
    num_members = len(logits)
    p = [{row: 1 / (1 + torch.exp(-logits[m][row])) for row in real} for m in range(num_members)]
    merged = {row: 1 / (1 + torch.exp(-sum(logits[m][row] for m in range(num_members)) / num_members)) for row in real}

    def counted(member: int, row: int) -> float:
        return weight[row] * (bags[member][row] if bags and member in bags else 1.0)

    def cross_entropy(probability: Tensor, target: float) -> Tensor:
        return -(target * torch.log(probability) + (1 - target) * torch.log(1 - probability))

    def entropy(probability: Tensor, row: int) -> Tensor:
        return cross_entropy(probability, label[row])

    def distance(member: int, targets: dict[int, Tensor]) -> Tensor:
        return sum(counted(member, row) * (p[member][row] - targets[row].detach()) ** 2 for row in real)

    score = [
        sum(weight[row] * (1 - abs(label[row] - p[m][row].item())) for row in real) / sum(weight.values())
        for m in range(num_members)
    ]
    own = torch.zeros((), dtype=torch.float64)
    for m in range(num_members):
        for row in real:
            of_heads = [1 / (1 + torch.exp(-z[row])) for z in heads[m]]
            if m in taught:
                loss = entropy(p[m][row], row) + sum(cross_entropy(each, p[m][row].item()) for each in of_heads)
            else:
                loss = sum(entropy(each, row) for each in of_heads) / len(of_heads)
            own = own + counted(m, row) * loss / num_members
    of_merged = sum(weight[row] * entropy(merged[row], row) for row in real)
    from_merged = sum(
        math.exp(-score[m]) / sum(math.exp(-s) for s in score) * distance(m, merged) for m in range(num_members)
    )
    from_others = 0.0
    for m in range(num_members):
        others = [j for j in range(num_members) if j != m]
        share = {j: math.exp(score[j] - score[m]) for j in others}
        from_others += sum(share[j] / sum(share.values()) * distance(m, p[j]) for j in others) / num_members
    mean = (1 - merged_share) * own + merged_share * of_merged + distillation * from_merged + mutual * from_others
    return num_members * mean


def assert_as_plain(found: tuple[Tensor, list[Tensor]], given: Rows, **plain: object) -> None:
    leaves = [logit.double().requires_grad_() for logit in given.logits]
    expected = plain_total(leaves, given, **plain)  # type: ignore[arg-type]
    total, gradients = found
    torch.testing.assert_close(total.double(), expected.detach(), rtol=1e-6, atol=1e-7)
    for member, gradient in enumerate(torch.autograd.grad(expected, leaves)):
        torch.testing.assert_close(gradients[member].double(), gradient, rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("num_members", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_total_and_gradient_are_those_of_the_formula(ties: dict[str, float], num_members: int, weighted: bool) -> None:
    given = rows(num_members, weighted=weighted)
    assert_as_plain(given.of(MemberLosses(**ties)), given, **ties)


@pytest.mark.parametrize("ties", [{}, *TIES])
def test_bag_counts_weigh_a_members_own_terms(ties: dict[str, float]) -> None:
    given = rows(3)
    places = {"part_B": torch.full((12,), 2), "row_B": torch.arange(100, 112)}
    bags = {index: bag_counts(**places, seed=seed).tolist() for index, seed in ((0, 5), (2, 6))}
    assert bags[0] != bags[2] and max(bags[0]) > 1
    losses = MemberLosses(**ties, bag_seeds={0: 5, 2: 6})
    assert_as_plain(given.of(losses, **places), given, **ties, bags=bags)
    _, output = losses(given.logits, given.labels, given.weights, **places)
    for member in range(3):
        of_rows = binary_cross_entropy_with_logits(given.logits[member], given.labels, reduction="none")
        counts = torch.tensor(bags.get(member, [1.0] * 12))
        torch.testing.assert_close(output.losses_M[member], (of_rows * given.weights * counts).sum())


@pytest.mark.parametrize("ties", [{}, *TIES])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_each_head_is_trained_for_its_own_loss_and_their_mean_logit_is_tied(
    ties: dict[str, float], num_heads: int
) -> None:
    given = rows(4, weighted=True, heads=num_heads)
    assert [logit.shape for logit in given.logits] == [(12,), (12, num_heads)] * 2
    places = {"part_B": torch.full((12,), 2), "row_B": torch.arange(100, 112)}
    bags = {index: bag_counts(**places, seed=seed).tolist() for index, seed in ((0, 5), (1, 6))}
    losses = MemberLosses(**ties, bag_seeds={0: 5, 1: 6})
    assert_as_plain(given.of(losses, **places), given, **ties, bags=bags)
    _, output = losses(given.logits, given.labels, given.weights, **places)
    assert output.logits_BM.shape == (12, 4) and output.losses_M.shape == (4,)
    torch.testing.assert_close(output.logits_BM[:, 3], sum(given.logits[3].unbind(dim=1)) / num_heads)
    counted = given.weights * torch.tensor(bags[1])
    of_heads = [
        (binary_cross_entropy_with_logits(z, given.labels, reduction="none") * counted).sum()
        for z in given.logits[1].unbind(dim=1)
    ]
    torch.testing.assert_close(output.losses_M[1], sum(of_heads) / num_heads)


@pytest.mark.parametrize("ties", [{}, *TIES])
def test_taught_heads_are_trained_for_their_mean_and_the_mean_for_the_labels(ties: dict[str, float]) -> None:
    given = rows(4, weighted=True, heads=3)
    places = {"part_B": torch.full((12,), 2), "row_B": torch.arange(100, 112)}
    bags = {1: bag_counts(**places, seed=6).tolist()}
    losses = MemberLosses(**ties, bag_seeds={1: 6}, taught=[1])  # member 3's heads have their own losses
    assert_as_plain(given.of(losses, **places), given, **ties, bags=bags, taught=[1])
    _, output = losses(given.logits, given.labels, given.weights, **places)
    of_mean = binary_cross_entropy_with_logits(given.logits[1].mean(dim=1), given.labels, reduction="none")
    torch.testing.assert_close(output.losses_M[1], (of_mean * given.weights * torch.tensor(bags[1])).sum())
    assert torch.equal(output.logits_BM[:, 1], given.logits[1].mean(dim=1))


def test_the_mean_learns_nothing_from_its_heads() -> None:
    given = rows(2, padding=0, heads=3)
    _, (_, gradient) = given.of(MemberLosses(taught=[1]))
    p_heads, p = torch.sigmoid(given.logits[1]), torch.sigmoid(given.logits[1].mean(dim=1, keepdim=True))
    expected = (p - given.labels[:, None]) / 3 + (p_heads - p)  # without a stopped gradient a third term is in it
    torch.testing.assert_close(gradient, expected / 9)


@pytest.mark.parametrize("heads", [0, 1])
def test_one_head_has_nothing_to_be_taught(heads: int) -> None:
    given = rows(2, heads=heads)
    (_, gradients), (_, wanted) = (given.of(losses) for losses in (MemberLosses(taught=[1]), MemberLosses()))
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=1e-8 * heads)


def test_who_is_not_taught_is_left_alone_to_the_bit() -> None:
    given = rows(4, heads=3)
    (_, taught), (_, plain) = (given.of(losses) for losses in (MemberLosses(taught=[1]), MemberLosses()))
    assert [torch.equal(a, b) for a, b in zip(taught, plain, strict=True)] == [True, False, True, True]


def test_a_member_of_equal_heads_counts_as_the_member_with_one() -> None:
    given, several = rows(3), rows(3)
    several.logits[1] = given.logits[1][:, None].repeat(1, 5)
    (total, gradients), (expected, wanted) = (
        each.of(MemberLosses(merged_share=0.4, distillation=0.5, mutual=2.0)) for each in (several, given)
    )
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradients[1].sum(dim=1), wanted[1])
    torch.testing.assert_close([gradients[0], gradients[2]], [wanted[0], wanted[2]])


def test_bagging_needs_to_know_the_rows() -> None:
    with pytest.raises(AssertionError, match="where the rows are"):
        rows(2).of(MemberLosses(bag_seeds={0: 1}))


def test_without_ties_the_total_is_the_sum_to_the_bit() -> None:
    given = rows(4)
    leaves = [logit.clone().requires_grad_() for logit in given.logits]
    expected = sum(
        (binary_cross_entropy_with_logits(leaf, given.labels, reduction="none") * given.weights).sum()
        for leaf in leaves
    )
    assert isinstance(expected, Tensor)
    total, gradients = given.of(MemberLosses())
    assert torch.equal(total, expected)
    for found, wanted in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("ties", TIES)
def test_one_member_has_nobody_to_be_tied_to(ties: dict[str, float]) -> None:
    given = rows(1)
    total, (gradient,) = given.of(MemberLosses(**ties, mean_over_ranks=_refuse))
    plain_total, (plain_gradient,) = given.of(MemberLosses())
    assert torch.equal(total, plain_total) and torch.equal(gradient, plain_gradient)


def _refuse(_values: Tensor) -> Tensor:
    raise AssertionError("there is nothing to ask the other ranks")


def test_ranks_are_asked_for_scores_alone_and_in_training_alone() -> None:
    given = rows(3)
    given.of(MemberLosses(merged_share=0.5, mean_over_ranks=_refuse))
    tied = MemberLosses(distillation=1.0, mutual=1.0, merged_share=0.5, bag_seeds={0: 1}, mean_over_ranks=_refuse)
    total, gradients = given.of(tied.eval())
    plain, plain_gradients = given.of(MemberLosses())
    assert torch.equal(total, plain)
    assert all(torch.equal(a, b) for a, b in zip(gradients, plain_gradients, strict=True))
    with pytest.raises(AssertionError, match="nothing to ask"):
        given.of(tied.train(), part_B=torch.zeros(12), row_B=torch.arange(12))


def test_at_merged_share_1_the_gradient_is_that_of_the_mean_logit_times_their_number() -> None:
    given = rows(3, padding=0)
    leaves = [logit.clone().requires_grad_() for logit in given.logits]
    expected = 3 * binary_cross_entropy_with_logits(sum(leaves) / 3, given.labels)
    total, gradients = given.of(MemberLosses(merged_share=1.0))
    torch.testing.assert_close(total, expected.detach())
    for found, wanted in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted)
    # Of one size with that of a member's own loss, so that learning rates keep their meaning.
    alike = Rows([given.logits[0]] * 3, given.labels, given.weights)
    for one, other in zip(alike.of(MemberLosses())[1], alike.of(MemberLosses(merged_share=1.0))[1], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("ties", TIES)
def test_logits_beyond_saturation_give_finite_gradients(ties: dict[str, float]) -> None:
    given = rows(3)
    for member, size in enumerate((1e4, -3e30, 90.0)):
        given.logits[member] = torch.where(given.labels > 0.5, -size, size)
    total, gradients = given.of(MemberLosses(**ties))
    assert torch.isfinite(total)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("ties", TIES[2:4])
def test_neither_labels_nor_logits_of_padding_matter(ties: dict[str, float]) -> None:
    given, other = rows(3), rows(3)
    other.labels[9:] = torch.nan
    other.logits = [torch.where(other.weights > 0, logit, -300.0) for logit in other.logits]
    # At merged_share 1 the members' own losses, which a NaN label is meant to spoil, are not in the total.
    (total, gradients), (expected, wanted) = (
        each.of(MemberLosses(**ties, merged_share=1.0)) for each in (other, given)
    )
    assert torch.equal(total, expected)
    assert all(torch.equal(a, b) for a, b in zip(gradients, wanted, strict=True))
    for gradient in gradients:
        assert not gradient[9:].any()


def test_a_batch_of_rows_that_count_nothing_moves_nothing() -> None:
    given = rows(3)
    given.weights = torch.zeros(12)
    total, gradients = given.of(MemberLosses(merged_share=0.5, distillation=1.0, mutual=1.0))
    assert total == 0
    assert not torch.stack(gradients).any()


def test_autocast_leaves_the_losses_in_float32() -> None:
    given, losses = rows(5), MemberLosses(merged_share=0.5, distillation=1.0, mutual=1.0)
    plain, plain_gradients = given.of(losses)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, gradients = given.of(losses)
    assert torch.equal(total, plain)
    assert all(torch.equal(a, b) for a, b in zip(gradients, plain_gradients, strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_mean_over_ranks_is_the_mean_over_the_global_batch(world_size: int) -> None:
    count, slice_rows = 7, 4  # ranks hold 7; 4 and 3; 4, 3 and none
    slice_rows = count if world_size == 1 else slice_rows
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 2, generator=random, dtype=torch.float64)
    labels = (torch.rand(count, generator=random) > 0.5).double()
    summed = torch.zeros(2, dtype=torch.float64)
    for rank in range(world_size):
        mine = slice(rank * slice_rows, min((rank + 1) * slice_rows, count))
        rows_here = len(labels[mine])
        padding = slice_rows - rows_here
        # What a padded row's logit and label are must not matter.
        padded_logits = torch.cat([logits[mine], torch.full((padding, 2), 55.0, dtype=torch.float64)])
        padded_labels = torch.cat([labels[mine], torch.zeros(padding, dtype=torch.float64)])
        weights = torch.tensor([world_size / count] * rows_here + [0.0] * padding)
        total, output = MemberLosses()([padded_logits[:, 0], padded_logits[:, 1]], padded_labels.float(), weights)
        torch.testing.assert_close(total.double(), output.losses_M.double().sum(), rtol=1e-6, atol=1e-6)
        summed += output.losses_M
    expected = [binary_cross_entropy_with_logits(logits[:, m], labels).item() for m in range(2)]
    torch.testing.assert_close((summed / world_size).tolist(), expected, rtol=1e-6, atol=1e-6)
