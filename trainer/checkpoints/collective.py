"""What torch.distributed.checkpoint reports, as one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch.distributed.checkpoint.api import CheckpointException

from configs.errors import CheckpointError, ChorusError
from trainer.failures import lost_a_peer

T = TypeVar("T")


def one_sentence(what: str, do: Callable[[], T]) -> T:
    """Runs a save or load and gives what it gives; what fails on any rank is one sentence with the rank.

    Raises:
        CheckpointError: the checkpoint does not hold what it should.
        ChorusError: the disk or the network failed; trying again may help.
        KeyboardInterrupt: a rank was asked to stop.
    """
    try:
        return do()
    except CheckpointException as error:  # not an Exception; it carries what ended any rank, interrupts included
        rank, (cause, _) = next(iter(error.failures.items()))
        if isinstance(cause, KeyboardInterrupt | SystemExit):
            raise KeyboardInterrupt from error
        raise _kind(cause)(f"cannot {what}: rank {rank}: {_one_line(cause)}") from error
    except Exception as error:
        if lost_a_peer(error):
            raise
        raise _kind(error)(f"cannot {what}: {_one_line(error)}") from error


def _kind(error: BaseException) -> type[ChorusError]:
    return ChorusError if isinstance(error, OSError) or lost_a_peer(error) else CheckpointError


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[-300:]
