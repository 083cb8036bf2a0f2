"""Seeds derived from names, so that no stream of random numbers is shared by anything."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch

_SEED_BITS = 63


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a function of the parts alone, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs a block under its own CPU random stream and leaves the surrounding one untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
