"""StepProfiler: records a few training steps with torch.profiler and leaves one trace a rank in the run's folder."""

from __future__ import annotations

import os
import tempfile
import types
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from trainer import storage

PROFILE_FOLDER = "profile"


class StepProfiler:
    """Records the steps from the first to the last one; without steps it does nothing.

    Use it as a context manager around the loop and call `step` after each step. The trace is written once the last step
    is over, or on leaving the block where training stops before that (the span of the step that never came is empty);
    a block that fails leaves none. It lies in FOLDER/profile/rank_R.json.gz, in Chrome's format, which Perfetto and
    chrome://tracing read; in it a step is one span, `step STEP`. A later attempt writes over it.

    Args:
        steps: (first, last), counted from 1, or nothing.
        folder: The run's folder, local or s3://.
        rank: This process.
        device: Where it computes; on cuda the kernels are recorded too.
        steps_done: The steps before the block's first one, where a run is resumed.
    """

    def __init__(
        self, steps: Sequence[int], *, folder: str, rank: int, device: torch.device, steps_done: int = 0
    ) -> None:
        self._first, self._last = steps or (0, 0)
        self._folder = storage.join(folder, PROFILE_FOLDER)
        self._name = f"rank_{rank}.json.gz"
        self._activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        self._steps_done = steps_done
        self._profile: profile | None = None
        self._span = record_function("")

    def __enter__(self) -> StepProfiler:
        self._start_before(self._steps_done + 1)
        return self

    def step(self, step: int) -> None:
        """Tells that a step is over.

        Raises:
            OSError: the trace cannot be written.
        """
        if self._profile is not None:
            self._span.__exit__(None, None, None)
            if step == self._last:
                self._profile.stop()
                self._write(self._profile)
        self._start_before(step + 1)

    def _start_before(self, step: int) -> None:
        # Also where a run is resumed in the middle: what is left of the steps is recorded.
        if not self._first <= step <= self._last:
            return
        if self._profile is None:
            self._profile = profile(activities=self._activities)
            self._profile.start()
        self._span = record_function(f"step {step}")
        self._span.__enter__()

    def _write(self, recorded: profile) -> None:
        self._profile = None
        with tempfile.TemporaryDirectory() as here:  # the profiler knows local files only
            local = os.path.join(here, self._name)
            recorded.export_chrome_trace(local)
            storage.make_folder(self._folder)
            path = storage.join(self._folder, self._name)
            with storage.naming(path):
                storage.copy_file(local, path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._profile is None:
            return
        self._span.__exit__(kind, error, trace)
        self._profile.stop()
        if error is None:
            self._write(self._profile)
