"""The clock: durations as people read them."""

from __future__ import annotations

import pytest

from trainer.clock import clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3_599.4, "59:59"), (3_600, "1:00:00"), (90_061, "25:01:01")],
)
def test_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
