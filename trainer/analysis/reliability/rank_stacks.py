"""RankStacks: where a rank is, in its own words: its Python stack, written at once when it is asked."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.analysis.reliability.job_output import Phase
from trainer.analysis.reliability.processes import ROOT, JobProcess

_IN_RANKS = str(Path(__file__).with_name("in_ranks"))
_PATIENCE_SECONDS = 0.3
_FRAME = re.compile(r'  File "([^"]+)", line (\d+) in (\S+)')
# Of a stack, the first that any of its frames matches.
_PHASES: Sequence[tuple[str, Phase]] = (
    (r"trainer/evaluation\.py", "evaluation"),
    (r"trainer/restoring\.py", "restoring"),
    (r"trainer/task_plan\.py", "planning"),
    (r"trainer/loop\.py \S+ train$", "steps"),
    (r"trainer/runtime\.py \S+ __enter__$", "meeting"),
    (r"trainer/assembly\.py", "assembling"),
    (r"trainer/runtime\.py \S+ __exit__$|trainer/failures\.py \S+ leave$|say_end$", "end"),
)


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """Where a rank was."""

    phase: Phase
    line: str  # of ours, as trainer/loop.py:12 (train); empty: none


class RankStacks:
    """Asks ranks for their stacks.

    Args:
        folder: Where they write them; made anew for each launch.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, exist_ok=True)

    def environment(self) -> dict[str, str]:
        """What the ranks' environment must have."""
        paths = [_IN_RANKS, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"CHORUS_STACKS": self._folder, "PYTHONPATH": os.pathsep.join(paths)}

    def ask(self, rank: JobProcess) -> RankPlace | None:
        """Where the rank is now; None where it does not answer, as before Python is up."""
        path = Path(self._folder, f"{rank.pid}.txt")
        if not path.exists():
            return None
        before = path.stat().st_size
        rank.signal(signal.SIGUSR1)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            text = path.read_text()[before:]
            if text.endswith("\n") and _FRAME.search(text):
                return place_of(text)
            time.sleep(0.001)
        return None


def place_of(stack: str) -> RankPlace:
    """Reads a stack as faulthandler writes it, the innermost frame first."""
    frames = [(path.removeprefix(f"{ROOT}/"), line, name) for path, line, name in _FRAME.findall(stack)]
    told = [f"{path} {line} {name}" for path, line, name in frames]
    ours = [frame for frame in frames if frame[0].startswith(("trainer/", "sharding/", "modules/", "configs/"))]
    found: list[Phase] = ["importing"] if ours and ours[0][2] == "<module>" else []
    found += [phase for pattern, phase in _PHASES if any(re.search(pattern, frame) for frame in told)]
    line = "{}:{} ({})".format(*ours[0]) if ours else ""
    return RankPlace(phase=found[0] if found else "importing", line=line)
