"""Seeds: pinned values, told apart by part and type, and streams that leave the surrounding one alone."""

from __future__ import annotations

import hashlib

import pytest
import torch

from modules.seeding import derive_seed, seeded


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(1, "member", "deep") == 3594781381355591383
    assert derive_seed("a", "b") == 793666144677190889
    assert derive_seed() == 8203414616412130826


def test_a_seed_is_the_top_63_bits_of_a_hash() -> None:
    for parts, text in ((("a", "b"), "str:a\x1fstr:b"), ((1, "x"), "int:1\x1fstr:x")):
        assert derive_seed(*parts) == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 1


def test_parts_are_told_apart() -> None:
    made = [derive_seed(*parts) for parts in (("a", "b"), ("ab",), ("b", "a"), (1,), ("1",), (-1,), (0,), ("a",))]
    assert len(set(made)) == len(made)


def test_seeds_fit_what_takes_them() -> None:
    seeds = [derive_seed(i) for i in range(2_000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) > 2**62
    torch.Generator().manual_seed(max(seeds))


def test_a_block_has_its_own_stream() -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    first_two = torch.rand(2)
    with seeded(5):
        inside = torch.rand(3)
    assert torch.equal(torch.cat([first_two, torch.rand(2)]), expected)
    with seeded(5):
        assert torch.equal(torch.rand(3), inside)
    with seeded(6):
        assert not torch.equal(torch.rand(3), inside)


def test_an_error_in_a_block_puts_the_stream_back() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(5):
        raise RuntimeError
    assert torch.equal(torch.random.get_rng_state(), before)
