"""RunFolder: where a run writes: run.toml, plan.json, metrics, checkpoints, and how it ended."""

from __future__ import annotations

import time
import types

from configs.errors import EXIT_DONE, EXIT_FAILURE, ChorusError
from configs.loader import dump_run
from configs.schema import RunConfig
from trainer import storage
from trainer.failures import failure_sentence
from trainer.runtime import Runtime

OUTCOME_NAME = "outcome.json"


class RunFolder:
    """The folder of one run. Use it as a context manager: what ends the block is recorded in outcome.json.

    Args:
        config: The run; an empty `run.folder` gives runs/NAME/START_TIME, the same on every rank.
        runtime: This process.
    """

    def __init__(self, config: RunConfig, *, runtime: Runtime) -> None:
        self._config = config
        self._runtime = runtime
        self._exit_code = EXIT_DONE
        self._facts: dict[str, object] = {}
        self.path = ""

    def __enter__(self) -> RunFolder:
        run = self._config.run
        fresh = storage.join("runs", run.name, time.strftime("%Y%m%d-%H%M%S"))
        self.path = self._runtime.once_per_job("run_folder", lambda: run.folder or fresh)
        self._runtime.from_main(self._prepare)
        return self

    def _prepare(self) -> None:
        storage.make_folder(self.path)
        storage.write_text(storage.join(self.path, "run.toml"), dump_run(self._config))

    def finish(self, *, exit_code: int, **facts: object) -> None:
        """Notes how the run ended; written when the block ends."""
        self._exit_code = exit_code
        self._facts = facts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        outcome = storage.join(self.path, OUTCOME_NAME)
        if error is None:
            if self._runtime.is_main:
                storage.write_json(outcome, {"exit_code": self._exit_code, **self._facts})
        elif self._runtime.claim("outcome"):
            code = error.exit_code if isinstance(error, ChorusError) else EXIT_FAILURE
            storage.write_json(outcome, {"exit_code": code, "error": failure_sentence(error)})
