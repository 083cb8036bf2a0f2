"""JobProcess: one job in a process of its own, from training to predictions, with what it took."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from configs.errors import EXIT_DONE, ConfigError
from trainer import main as training
from trainer import quiet_libraries, score, storage
from trainer.averaged_weights import averaged
from trainer.benchmark.jobs import Job
from trainer.checkpoints.manifest import CHECKPOINTS_NAME, read_manifest, step_names
from trainer.failures import guard, leave
from trainer.predictions.manifest import MANIFEST_NAME as PREDICTIONS_MANIFEST
from trainer.predictions.manifest import PredictionManifest
from trainer.reporting import METRICS_NAME

DONE_NAME = "done.json"
LOG_NAME = "log.txt"
RUN_NAME = "given.toml"
PREDICTIONS_NAME = "predictions"
_TRAINED_NAME = "run"
_TOOK_NAME = "took.json"
_AVERAGE_NAME = "average"


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job and where it works."""

    job: Job
    folder: str
    source_folders: tuple[str, ...]  # of the jobs whose weights it averages
    device: str  # for CUDA_VISIBLE_DEVICES; empty: as it is


def carry_out(order: Order) -> None:
    """Does the job in this process, its words in the folder's log, and ends the process with its exit code."""
    log = os.open(storage.join(order.folder, LOG_NAME), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    _end_with_runner()
    if order.device:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.device
    quiet_libraries.silence()
    leave(guard(lambda _argv: _done(order), []))


def _end_with_runner() -> None:
    """Has this process stop with a checkpoint when the one that ordered the job is gone, killed or not.

    Its parent is the fork server, which stays as long as this process does.
    """
    runner = multiprocessing.parent_process()
    assert runner is not None, "a job is a process of its own"
    sentinel = runner.sentinel

    def follow() -> None:
        wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="runner", daemon=True).start()


def checkpoints_of(folder: str, *, count: int, take: str = "last") -> list[str]:
    """The last checkpoints of a job, the oldest first; or the best alone."""
    run = storage.join(folder, _TRAINED_NAME)
    if storage.exists(storage.join(folder, _AVERAGE_NAME)):
        return [storage.join(folder, _AVERAGE_NAME)]
    kept = storage.join(run, CHECKPOINTS_NAME)
    folders = [storage.join(kept, name) for name in step_names(kept)]
    if take == "best":
        return [max(folders, key=_quality)]
    if len(folders) < count:
        raise ConfigError(
            f"checkpoints: {count} are wanted of a training that kept {len(folders)}; write them more often"
            " (checkpoint.every), or ask for fewer"
        )
    return folders[-count:]


def _quality(checkpoint: str) -> float:
    quality = read_manifest(checkpoint).quality
    return -math.inf if quality is None else quality


def _done(order: Order) -> int:
    took = _Took.read(order.folder)
    code = _train(order) if order.job.averaging is None else _average(order)
    took.write("train_seconds")
    if code == EXIT_DONE and not _is_scored(order.folder):
        code = _score(order)
        took.write("score_seconds")
    if code == EXIT_DONE:
        storage.write_json(storage.join(order.folder, DONE_NAME), _record(order) | took.seconds)
    return code


class _Took:
    """Seconds that a job has taken in this and earlier processes, as far as these were not killed."""

    def __init__(self, path: str, seconds: dict[str, float]) -> None:
        self._path, self.seconds = path, seconds
        self._wall, self._cpu = time.monotonic(), 0.0

    @staticmethod
    def read(folder: str) -> _Took:
        path = storage.join(folder, _TOOK_NAME)
        none = dict.fromkeys(("train_seconds", "score_seconds", "cpu_seconds"), 0.0)
        return _Took(path, none | _read(path))

    def write(self, stage: str) -> None:
        """Adds what went by since the last call."""
        wall, cpu = time.monotonic(), time.process_time()
        self.seconds[stage] += wall - self._wall
        self.seconds["cpu_seconds"] += cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        storage.write_json(self._path, self.seconds)


def _train(order: Order) -> int:
    given = storage.join(order.folder, RUN_NAME)
    storage.write_text(given, order.job.run)
    words = ["--config", given, f"--run.folder={storage.join(order.folder, _TRAINED_NAME)}"]
    if order.job.checkpoints > 1:
        words.append(f"--checkpoint.keep_last={order.job.checkpoints}")
    return _started(training.main, words)


def _average(order: Order) -> int:
    averaging = order.job.averaging
    assert averaging is not None
    output = storage.join(order.folder, _AVERAGE_NAME)
    if storage.exists(output):  # of a start that was stopped
        storage.remove_tree(output)
    count = averaging.count if averaging.over == "checkpoints" else 1
    folders = [folder for source in order.source_folders for folder in checkpoints_of(source, count=count)]
    averaged(
        folders,
        rule=averaging.rule,
        decay=averaging.decay if averaging.rule == "ema" else None,
        output=output,
        batch_norm_rows=averaging.batch_norm_rows,
        data_root=order.job.data if averaging.batch_norm_rows else "",
    )
    return EXIT_DONE


def _score(order: Order) -> int:
    kept = checkpoints_of(order.folder, count=order.job.checkpoints, take=order.job.take)
    names = [folder if len(kept) == 1 else f"c{place}={folder}" for place, folder in enumerate(kept, start=1)]
    words = [word for name in names for word in ("--checkpoint", name)]
    words += ["--output", storage.join(order.folder, PREDICTIONS_NAME), f"--data.root={order.job.data}"]
    # Members that compute in bfloat16 give many equal logits; in fp32 their weights give the figures they deserve.
    words += [f"--score.parts={json.dumps(order.job.scored)}", "--dense.precision=fp32"]
    return _started(score.main, words)


def _started(main: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    print(f"== {' '.join(words)}", flush=True)
    return guard(main, words)


def _record(order: Order) -> dict[str, Any]:
    manifest = PredictionManifest.read(storage.join(order.folder, PREDICTIONS_NAME))
    return {"columns": list(manifest.members), "epochs": _epochs(order.folder)}


def _epochs(folder: str) -> dict[str, int]:
    """Member -> epochs that it was trained for, where the run wrote a line at the end of each."""
    path = storage.join(folder, _TRAINED_NAME, METRICS_NAME)
    if not storage.is_file(path):
        return {}
    found: dict[str, int] = {}
    for line in storage.read_text(path).splitlines():
        for key in json.loads(line):
            if key.startswith("train/") and key.endswith("/loss_nats"):
                name = key.split("/")[1]
                found[name] = found.get(name, 0) + 1
    return found


def is_done(folder: str) -> bool:
    """Whether a job has come to its end there."""
    return bool(_read(storage.join(folder, DONE_NAME))) and _is_scored(folder)


def _read(path: str) -> dict[str, Any]:
    """A record; empty where there is none, or where something else has written over it."""
    try:
        found = storage.read_json(path) if storage.is_file(path) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_scored(folder: str) -> bool:
    return storage.is_file(storage.join(folder, PREDICTIONS_NAME, PREDICTIONS_MANIFEST))
