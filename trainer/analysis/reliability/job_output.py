"""JobOutput: what a training job has printed so far, and where in its life that shows it to be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal[
    "launching", "importing", "meeting", "assembling", "planning", "restoring", "steps", "evaluation", "end"
]

_STEP = re.compile(r"step (\d+)/(\d+)  ")
_WRITTEN = re.compile(r"checkpoint: \S+  \(.* in ([0-9.]+) s\)")
_LAST_WORDS = ("trained ", "already trained to step", "stopped on request")


class JobOutput:
    """Follows the file that a job prints to.

    Args:
        path: The file; it may not be there yet.
        evaluates: Whether the run evaluates after a step.
    """

    def __init__(self, path: str, *, evaluates: Callable[[int], bool]) -> None:
        self._path = path
        self._evaluates = evaluates
        self._at = 0
        self._rest = ""
        self.phase: Phase = "launching"
        self.step = 0  # the last one printed
        self.highest_step = 0
        self.stepped_in_attempt = False
        self.write_seconds: list[float] = []  # of each checkpoint

    def begin_attempt(self) -> None:
        """The ranks have been started, for the first time or again."""
        self.phase, self.stepped_in_attempt = "importing", False

    def begin_launch(self) -> None:
        """torchrun is being started."""
        self.phase, self.stepped_in_attempt = "launching", False

    def read(self) -> None:
        """Takes in what was printed since the last call."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                content = file.read()
        except FileNotFoundError:
            return
        self._at += len(content)
        *lines, self._rest = (self._rest + content.decode(errors="replace")).split("\n")
        for line in lines:
            self._take(line)

    def _take(self, line: str) -> None:
        step, written = _STEP.match(line), _WRITTEN.match(line)
        if step is not None:
            self.step, last = int(step[1]), int(step[2])
            self.highest_step = max(self.highest_step, self.step)
            self.stepped_in_attempt = True
            self.phase = "evaluation" if self.step == last or self._evaluates(self.step) else "steps"
        elif line.startswith("  eval ") and self.phase == "evaluation":
            self.phase = "steps"
        elif line.startswith(_LAST_WORDS):
            self.phase = "end"
        elif written is not None:
            self.write_seconds.append(float(written[1]))

    def tail(self, num_lines: int) -> list[str]:
        """The last lines."""
        with open(self._path, "rb") as file:
            return file.read().decode(errors="replace").splitlines()[-num_lines:]
