"""Ranks that only meet at every step, which starts faster than training; one of them meets a fault.

torchrun ... step_with_fault.py FAULT RANK MOMENT FOLDER

FOLDER/struck appears with the fault, FOLDER/outcome with the failure.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from configs.errors import EXIT_DONE, EXIT_PREEMPTED
from configs.schema import Run
from tests.support.faults import strike
from trainer.failures import exit_code_of, failure_sentence, guard, leave
from trainer.runtime import Runtime

HANG_SECONDS = 3
TIMEOUT_SECONDS = 6
NUM_STEPS = 40


def main(words: Sequence[str]) -> int:
    """Takes 40 steps of 20 ms, or stops when it is asked to."""
    run = Run(device="cpu", hang_seconds=HANG_SECONDS, timeout_seconds=TIMEOUT_SECONDS)
    with Runtime(run) as runtime:
        outcome = Path(words[0]) / "outcome"
        runtime.at_sudden_end(lambda code, sentence: _record(outcome, code, sentence))
        runtime.say(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}")
        try:
            return _work(runtime)
        except BaseException as error:  # as a run's folder does
            runtime.explain(error)
            _record(outcome, exit_code_of(error), failure_sentence(error))
            raise


def _work(runtime: Runtime) -> int:
    runtime.beat("opening")
    runtime.ranks.wait()
    with runtime.patience("restoring"):
        time.sleep(0.2)
    runtime.listen_for_stop()
    stop = False
    with runtime.steps():
        for step in range(1, NUM_STEPS + 1):
            runtime.beat(f"step {step}")
            time.sleep(0.02)
            stop = bool(runtime.sum(torch.tensor([int(runtime.stop_requested)])))
            if stop:
                break
    runtime.stopped_on_request = stop
    runtime.say(f"at the end after step {step}")
    return EXIT_PREEMPTED if stop else EXIT_DONE


def _record(outcome: Path, code: int, sentence: str) -> None:
    outcome.write_text(f"{code} {sentence}")


if __name__ == "__main__":
    fault, rank, moment, *words = sys.argv[1:]
    strike(fault, rank=rank, moment=moment, mark=f"{words[0]}/struck")
    leave(guard(main, words))
