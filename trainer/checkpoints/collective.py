"""What torch.distributed.checkpoint reports, as one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException

from configs.errors import CheckpointError


def one_sentence(what: str, do: Callable[[], Any]) -> None:
    """Runs a save or load; what fails on any rank is one sentence with the rank.

    Raises:
        CheckpointError: it failed.
    """
    try:
        do()
    except CheckpointException as error:  # not an Exception
        rank, (cause, _) = next(iter(error.failures.items()))
        raise CheckpointError(f"cannot {what}: rank {rank}: {_one_line(cause)}") from error
    except Exception as error:
        raise CheckpointError(f"cannot {what}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[-300:]
