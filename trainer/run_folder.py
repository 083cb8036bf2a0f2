"""RunFolder: where a run writes: run.toml, plan.json, metrics, checkpoints, and how it ended."""

from __future__ import annotations

import contextlib
import time
import types

from configs.errors import EXIT_DONE, ConfigError
from configs.loader import dump_run
from configs.schema import RunConfig
from trainer import storage
from trainer.checkpoints.manifest import RUN_NAME
from trainer.failures import exit_code_of, failure_sentence
from trainer.runtime import Runtime

OUTCOME_NAME = "outcome.json"
_LOCK_SECONDS = 90.0  # a rank that hangs there is ended in less


class RunFolder:
    """The folder of one run. Use it as a context manager: what ends the block is recorded in outcome.json.

    Until `begin`, the folder of an earlier start is left as it is, so that a refused one changes nothing. A local
    folder is this run's alone while it lasts; on s3:// two runs in one folder are not kept apart.

    Args:
        config: The run; an empty `run.folder` gives a new runs/NAME/START_TIME, the same on every rank.
        runtime: This process.
    """

    def __init__(self, config: RunConfig, *, runtime: Runtime) -> None:
        self._config = config
        self._runtime = runtime
        self._exit_code = EXIT_DONE
        self._facts: dict[str, object] = {}
        self._is_ours = False
        self._lock: int | None = None
        self.path = ""

    def __enter__(self) -> RunFolder:
        self.path = self._runtime.once_per_job("run_folder", self._make)
        self._runtime.from_main(self._take)
        self._is_ours = self._runtime.from_main(lambda: not storage.exists(self._inside(RUN_NAME)))
        self._runtime.at_sudden_end(self._record)
        return self

    def _make(self) -> str:
        run = self._config.run
        if run.folder:
            if storage.is_file(run.folder):
                raise ConfigError(f"run.folder: {run.folder!r} is a file; name a folder")
            storage.make_folder(run.folder)
            return run.folder
        return storage.make_new_folder(storage.join("runs", run.name, time.strftime("%Y%m%d-%H%M%S")))

    def _take(self) -> None:
        """Keeps other runs out of the folder. One that was asked to end may need a moment for its last checkpoint."""
        if storage.is_remote(self.path):
            return
        began = time.monotonic()
        self._lock = storage.try_to_lock(self.path)
        if self._lock is None:
            self._runtime.say(f"waiting for another run, which still writes in {self.path}")
        while self._lock is None:
            if time.monotonic() > began + _LOCK_SECONDS:
                raise ConfigError(
                    f"run.folder: another run writes in {self.path!r}; wait for its end, or name another folder"
                )
            time.sleep(0.2)
            self._lock = storage.try_to_lock(self.path)

    def _inside(self, name: str) -> str:
        return storage.join(self.path, name)

    def begin(self) -> None:
        """From here on the folder is this run's: writes run.toml and forgets how an earlier start ended."""
        self._is_ours = True
        if self._runtime.is_main:
            storage.write_text(self._inside(RUN_NAME), dump_run(self._config))
            if storage.is_file(self._inside(OUTCOME_NAME)):
                storage.remove_file(self._inside(OUTCOME_NAME))

    def finish(self, *, exit_code: int, **facts: object) -> None:
        """Notes how the run ended; written when the block ends."""
        self._exit_code = exit_code
        self._facts = facts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        try:
            self._end(error)
        finally:
            if self._lock is not None:
                storage.unlock(self._lock)

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            if self._runtime.is_main:
                body = {"exit_code": self._exit_code, **self._facts}
                storage.write_json(self._inside(OUTCOME_NAME), body)
            return
        self._runtime.explain(error)
        self._record(exit_code_of(error), failure_sentence(error))

    def _record(self, exit_code: int, sentence: str) -> None:
        if self._is_ours and self._runtime.claim("outcome"):
            with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
                storage.write_json(self._inside(OUTCOME_NAME), {"exit_code": exit_code, "error": sentence})
