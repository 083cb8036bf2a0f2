"""Long work of rank 0: the others wait in short exchanges, and get the result or the error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.trainer.ranks import OneOfMany
from trainer import long_work
from trainer.long_work import long_from_main


class Recorded(OneOfMany):
    """Rank 0 of several: what it sends is kept; or another rank, which receives it."""

    def __init__(self, *, rank: int, sent: list[Any]) -> None:
        super().__init__(rank=rank, world_size=2)
        self.sent, self.beats = sent, list[str]()

    def from_main(self, make: Callable[[], Any]) -> Any:
        if not self.is_main:
            return self.sent.pop(0)
        value = make()
        self.sent.append(value)
        return value

    def beat(self, doing: str) -> None:
        self.beats.append(doing)


def test_the_others_hear_of_rank_0_while_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.4, 1.2, 1.2, 1.3, 2.5, 2.5])
    monkeypatch.setattr(long_work.time, "monotonic", lambda: next(clock))

    def make(beat: Callable[[str], None]) -> str:
        for number in range(4):
            beat(f"file {number}")
        return "done"

    main = Recorded(rank=0, sent=[])
    assert long_from_main(make, doing="figures", runtime=main) == "done"  # type: ignore[arg-type]
    assert main.beats == ["file 0", "file 1", "file 2", "file 3"]
    assert main.sent == [(False, None), (False, None), (True, "done")], "no more than one exchange a second"
    other = Recorded(rank=1, sent=main.sent)
    assert long_from_main(make, doing="figures", runtime=other) == "done"  # type: ignore[arg-type]
    assert other.beats == ["waiting for figures"] * 2


def test_an_error_comes_out() -> None:
    def make(beat: Callable[[str], None]) -> str:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        long_from_main(make, doing="figures", runtime=Recorded(rank=0, sent=[]))  # type: ignore[arg-type]
