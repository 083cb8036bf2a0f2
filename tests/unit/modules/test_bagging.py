"""Bag counts: Poisson(1), independent between rows, parts and members, and the same wherever they are made."""

from __future__ import annotations

from math import exp, factorial

import pytest
import torch
from torch import Tensor

from modules.bagging import bag_counts

NUM_ROWS = 200_000
ERROR = NUM_ROWS**-0.5  # of a mean of NUM_ROWS numbers of variance 1
ALL_BITS = 2**64 - 1


def counts(*, seed: int = 7, part: int = 0, num_rows: int = NUM_ROWS, first_row: int = 0) -> Tensor:
    rows = torch.arange(first_row, first_row + num_rows)
    return bag_counts(torch.full_like(rows, part, dtype=torch.int32), rows, seed=seed)


def plain_mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & ALL_BITS
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & ALL_BITS
    return state ^ (state >> 31)


def plain_count(*, seed: int, part: int, row: int) -> int:
    """Unsigned integers and a walk up the distribution function."""
    key = plain_mix(((part + 1) * 0x9E3779B97F4A7C15 + seed) & ALL_BITS)
    uniform = (plain_mix(((row + 1) * 0x9E3779B97F4A7C15 + key) & ALL_BITS) >> 11) / 2**53
    count, cumulated = 0, exp(-1)
    while uniform >= cumulated:
        count += 1
        cumulated += exp(-1) / factorial(count)
    return count


@pytest.mark.parametrize("seed", [0, 1, 2**62 + 5, 2**63 - 1])
def test_a_count_is_that_of_unsigned_arithmetic(seed: int) -> None:
    places = [(part, row) for part in (0, 3, 2**31 - 1) for row in (*range(150), 2**32 + 1, 2**62)]
    found = bag_counts(torch.tensor([p for p, _ in places]), torch.tensor([r for _, r in places]), seed=seed)
    assert found.tolist() == [plain_count(seed=seed, part=part, row=row) for part, row in places]


def test_pinned_counts() -> None:
    assert counts(seed=0, num_rows=16).tolist() == [1, 1, 1, 1, 2, 0, 2, 0, 1, 1, 1, 0, 0, 1, 1, 0]
    assert counts(seed=1, num_rows=16, part=1).tolist() == [1, 0, 0, 1, 1, 2, 1, 0, 1, 0, 1, 0, 2, 1, 3, 0]


def test_counts_are_poisson() -> None:
    found = counts()
    assert found.dtype == torch.float32
    assert found.mean().item() == pytest.approx(1, abs=4 * ERROR)
    assert found.var().item() == pytest.approx(1, abs=4 * 3**0.5 * ERROR)
    shares = torch.bincount(found.long()) / NUM_ROWS
    for count, share in enumerate(shares.tolist()[:6]):
        assert share == pytest.approx(exp(-1) / factorial(count), abs=4 * ERROR * (share * (1 - share)) ** 0.5)


@pytest.mark.parametrize(
    "other",
    [{"seed": 8}, {"seed": 7 + 2**40}, {"part": 1}, {"first_row": 1}, {"first_row": 64}],
    ids=["next seed", "far seed", "next part", "next row", "row of another batch"],
)
def test_counts_elsewhere_are_independent(other: dict[str, int]) -> None:
    here, there = counts(), counts(**other)
    assert not torch.equal(here, there)
    correlation = torch.corrcoef(torch.stack([here, there]))[0, 1].item()
    assert abs(correlation) < 4 * ERROR
    both_zero = ((here == 0) & (there == 0)).float().mean().item()
    assert both_zero == pytest.approx(exp(-2), abs=4 * ERROR * (exp(-2) * (1 - exp(-2))) ** 0.5)


def test_a_count_goes_by_its_rows_place_alone() -> None:
    rows, parts = torch.arange(1000), torch.arange(1000) % 3
    whole = bag_counts(parts.int(), rows, seed=3)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    torch.rand(5)  # the global stream plays no part
    assert torch.equal(bag_counts(parts[order], rows[order].int(), seed=3), whole[order])
    assert torch.equal(bag_counts(parts[700:], rows[700:], seed=3), whole[700:])
    assert bag_counts(parts[:0], rows[:0], seed=3).shape == (0,)


@pytest.mark.gpu
def test_counts_on_cuda_are_the_same() -> None:
    rows = torch.arange(NUM_ROWS)
    found = bag_counts((rows % 5).cuda(), rows.cuda(), seed=2**62 + 5)
    assert torch.equal(found.cpu(), bag_counts(rows % 5, rows, seed=2**62 + 5))
