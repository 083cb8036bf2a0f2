"""trainer/score.py, killed at each of some moments: python score_with_fault.py FOLDER WORD ...

Each job writes to FOLDER/MOMENT and ends by kill -9. Forked, so that what takes long is imported once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from trainer import score, storage

FINISHED = 3  # ranges, where scoring itself is cut off


def _kill_at(
    module: Any, name: str, *, path: str = "", call: int = 1, moment: Literal["before", "after"] = "before"
) -> None:
    """Kills this process at a call of the module's function; of those of which a path ends so, where one is given."""
    function, calls = getattr(module, name), []

    def counted(*args: Any, **options: Any) -> Any:
        if str(args[-1 if name == "replace" else 0]).endswith(path):
            calls.append(args)
        if moment == "before" and len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, counted)


MOMENTS: dict[str, Callable[[], None]] = {
    "file": lambda: _kill_at(os, "replace", path=".parquet", call=FINISHED + 1),  # it is still called .tmp
    "record": lambda: _kill_at(storage, "write_bytes", path=".parquet", call=FINISHED + 1, moment="after"),
    "figures": lambda: _kill_at(score, "prediction_figures"),
    "manifest": lambda: _kill_at(storage, "remove_tree"),
}

if __name__ == "__main__":
    folder, *words = sys.argv[1:]
    for moment, prepare in MOMENTS.items():
        child = os.fork()
        if not child:
            prepare()
            score.main([*words, "--output", f"{folder}/{moment}"])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, status)
