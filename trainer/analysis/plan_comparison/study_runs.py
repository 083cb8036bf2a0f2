"""Study runs: trains the cases of a capacity study, one after the other, and keeps what they took in one file."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from configs.errors import ChorusError, ConfigError
from configs.loader import read_run
from modules import members
from trainer import storage
from trainer.analysis.bench.figures import machine
from trainer.analysis.bench.place import ROOT, BenchPlace
from trainer.analysis.plan_comparison.study_cases import WINDOWS, Case
from trainer.checkpoints.manifest import PLAN_NAME, RUN_NAME
from trainer.clock import clock
from trainer.data.manifest import MANIFEST_NAME
from trainer.planning.data_facts import data_facts
from trainer.usage import USAGE_NAME

MEASURED_NAME = "measured.json"
FORMAT = "chorus-capacity-study"
FORMAT_VERSION = 1
DAYS = ("day_0", "day_1")
_ROWS_PER_DAY = 9 * 16_384  # so that every batch of the cases is whole
_MAX_TABLE_ROWS = 200_000
_WINDOW_SECONDS = 0.8
_LEAST_WINDOW_SECONDS = 0.6  # a run whose windows come out shorter is repeated
_RUN_SECONDS = 12.0  # about what a run takes, start-up and all, until some have run
_LIMIT_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One case on so many ranks."""

    case: Case
    ranks: int

    @property
    def key(self) -> str:
        """Its name in files and figures."""
        return f"{self.case.name}_x{self.ranks}"


class Study:
    """A folder with prepared rows, and what runs on them took.

    Args:
        folder: Made where it is not there.
        say: Told what is being done.
    """

    def __init__(self, folder: str, *, say: Callable[[str], None]) -> None:
        self._place = BenchPlace(folder, say=say)
        self._say = say
        self.path = self._place.path(MEASURED_NAME)
        self.body = _read(self.path) if storage.is_file(self.path) else {}

    def place(self, name: str) -> str:
        """A path in the folder."""
        return self._place.path(name)

    def measured(self) -> dict[str, Any]:
        """What the runs took.

        Raises:
            ConfigError: nothing was measured yet.
        """
        if not self.body.get("runs"):
            raise ConfigError(f"--folder: {self.path} holds no run yet; measure first")
        return self.body

    def measure(self, cases: Sequence[Case]) -> None:
        """Trains what has not run yet.

        Raises:
            ChorusError: a run failed; its log is named.
        """
        wanted = [StudyRun(case=case, ranks=ranks) for case in cases for ranks in case.ranks]
        there = self.body.get("runs", {})
        missing = [run for run in wanted if run.key not in there]
        root = self._prepared() if missing else ""
        self.body = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "machine": self.body.get("machine") or machine(),
            "data": self.body.get("data", {}),
            "runs": there,
        }
        began = time.monotonic()
        for done, run in enumerate(missing):
            mean = (time.monotonic() - began) / done if done else _RUN_SECONDS
            left = clock(mean * (len(missing) - done))
            self._say(f"run {done + 1}/{len(missing)}  ETA {left}  {run.ranks} rank(s): {run.case.words}")
            self.body["runs"][run.key] = self._measured(run, root=root)
            storage.write_json(self.path, self.body)

    def _prepared(self) -> str:
        root = self._place.path("prepared")
        if not storage.is_file(storage.join(root, MANIFEST_NAME)):
            logs = [self._place.path("log", f"{day}.tsv") for day in DAYS]
            words = ["--output", self._place.path("log"), "--days", str(len(DAYS)), "--format", "tsv"]
            words += ["--rows-per-day", str(_ROWS_PER_DAY), "--scale", "0.02", "--skew", "0.8"]
            self._place.run("tools/make_synthetic.py", *words)
            words = ["--input", *logs, "--output", root, "--vocabulary-from", *DAYS, "--min-count", "1"]
            self._place.run("tools/prepare_criteo.py", *words, "--max-rows", str(_MAX_TABLE_ROWS))
            self._place.remove("log")
        return root

    def _measured(self, run: StudyRun, *, root: str) -> dict[str, Any]:
        seconds = run.case.rough_step_seconds(ranks=run.ranks)
        for _ in range(2):
            steps = 1 if run.case.use == "bytes" else max(1, math.ceil(_WINDOW_SECONDS / seconds))
            found = self._train(run, root=root, window_steps=steps)
            windows = found["usage"]["ranks"][0]["windows"][-WINDOWS:]
            middle = statistics.median(window["seconds"] for window in windows)
            if run.case.use == "bytes" or middle >= _LEAST_WINDOW_SECONDS:
                break
            seconds = middle / steps
        return found

    def _train(self, run: StudyRun, *, root: str, window_steps: int) -> dict[str, Any]:
        name = f"runs/{run.key}"
        self._place.remove(name)
        folder = self._place.path(name)
        storage.make_folder(folder)
        given = storage.join(folder, "given.toml")
        storage.write_text(given, run.case.text(root=root, parts=DAYS, window_steps=window_steps))
        began = time.monotonic()
        _start(["--config", given, f"--run.folder={folder}", "--run.device=cpu"], ranks=run.ranks, folder=folder)
        took = time.monotonic() - began
        self._place.remove(f"{name}/checkpoints")
        text = storage.read_text(storage.join(folder, RUN_NAME))
        batch = str(run.case.batch_size)
        if batch not in self.body["data"]:
            config = read_run(text, source=RUN_NAME, resolve_arch=members.config_class, arch_kinds=members.kinds())
            self.body["data"][batch] = asdict(data_facts(config))
        return {
            "case": asdict(run.case),
            "words": run.case.words,
            "ranks": run.ranks,
            "seconds": round(took, 2),
            "config": text,
            "plan": storage.read_json(storage.join(folder, PLAN_NAME)),
            "usage": storage.read_json(storage.join(folder, USAGE_NAME)),
        }


def _read(path: str) -> dict[str, Any]:
    body = storage.read_json(path)
    if not isinstance(body, Mapping) or (body.get("format"), body.get("version")) != (FORMAT, FORMAT_VERSION):
        raise ConfigError(f"--folder: {path} is not what this study writes; name another folder")
    return dict(body)


def _start(words: Sequence[str], *, ranks: int, folder: str) -> None:
    """Trains, as many cores for it as there are ranks, so that a rank alone has no more than one of several."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    log = storage.join(folder, "log.txt")
    command = [sys.executable, *launcher, str(ROOT / "trainer" / "main.py"), *words]
    with storage.open_file(log, "w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: _take_cores(ranks),
        )
        try:
            code = process.wait(_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise ChorusError(f"a run took more than {_LIMIT_SECONDS:.0f} s; see {log}") from None
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code:
        raise ChorusError(f"a run ended with code {code}; see {log}")


def _take_cores(count: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
