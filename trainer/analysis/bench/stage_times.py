"""Stage times: prepares as settings in a file say, and keeps the seconds, rows and bytes of each stage.

A program of its own, which loads nothing that a preparation does not: python trainer/analysis/bench/stage_times.py
SETTINGS TIMES, with pickled settings and a JSON file to write.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # a script finds its own folder there

from configs.errors import EXIT_DONE, ChorusError
from trainer import storage
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.preparation_command import ProgressLine
from trainer.data.preparing.preparation_settings import PreparationSettings
from trainer.data.preparing.stages import STAGES, PreparationProgress


class StageTimes:
    """Keeps what a preparation tells last of each stage, and shows it."""

    def __init__(self) -> None:
        self._of_stage: dict[str, dict[str, Any]] = {}
        self._show = ProgressLine()

    def __call__(self, now: PreparationProgress) -> None:
        """A stage has come so far."""
        self._of_stage[now.stage] = {"seconds": now.seconds, "num_rows": now.num_rows, "done": now.done}
        self._show(now)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The stages that had something to do, in order: seconds, rows, and what was done in the stage's own unit."""
        return {stage: self._of_stage[stage] for stage in STAGES if stage in self._of_stage}


def prepare_timed(settings: PreparationSettings) -> dict[str, dict[str, Any]]:
    """Prepares; gives `StageTimes.as_dict`.

    Raises:
        DataError: as `prepare`.
        ChorusError: as `prepare`.
    """
    times = StageTimes()
    prepare(settings, on_progress=times)
    return times.as_dict()


def main(arguments: Sequence[str]) -> int:
    """Reads the settings, prepares, writes the times; returns the exit code."""
    settings_file, times_file = arguments
    try:
        settings: PreparationSettings = pickle.loads(Path(settings_file).read_bytes())
        storage.write_json(times_file, prepare_timed(settings))
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
