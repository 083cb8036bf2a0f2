"""What torch.distributed.checkpoint reports, as one sentence."""

from __future__ import annotations

import traceback

import pytest
from torch.distributed.checkpoint.api import CheckpointException

from configs.errors import CheckpointError
from trainer.checkpoints.collective import one_sentence


def test_what_fails_is_one_sentence() -> None:
    def fail(error: BaseException) -> None:
        raise error

    one_sentence("load a", lambda: None)
    with pytest.raises(CheckpointError, match=r"^cannot load a: no space left$"):
        one_sentence("load a", lambda: fail(OSError("no space\n   left")))
    trace = traceback.StackSummary.from_list([])
    of_ranks = CheckpointException("write", {3: (OSError("no space\nleft"), trace)})
    assert not isinstance(of_ranks, Exception)
    with pytest.raises(CheckpointError, match=r"^cannot save a: rank 3: no space left$"):
        one_sentence("save a", lambda: fail(of_ranks))


def test_a_stop_is_not_a_failed_checkpoint() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one_sentence("save a", stop)
