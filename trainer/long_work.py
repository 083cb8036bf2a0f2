"""What rank 0 does for longer than the others would wait in one exchange."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trainer.runtime import Runtime

_PING_SECONDS = 1.0


def long_from_main(make: Callable[[Callable[[str], None]], Any], *, doing: str, runtime: Runtime) -> Any:
    """What rank 0's `make(beat)` returns, on every rank, however long it takes. A collective.

    An exception there is raised on every rank.

    Args:
        make: Calls `beat` with what it does at least every few seconds.
        doing: What the other ranks wait for.
        runtime: This process.
    """
    if runtime.is_main:
        pinged = time.monotonic()

        def beat(what: str) -> None:
            nonlocal pinged
            runtime.beat(what)
            if time.monotonic() - pinged >= _PING_SECONDS:
                pinged = time.monotonic()
                runtime.from_main(lambda: (False, None))

        return runtime.from_main(lambda: (True, make(beat)))[1]
    while not (found := runtime.from_main(lambda: None))[0]:
        runtime.beat(f"waiting for {doing}")
    return found[1]
