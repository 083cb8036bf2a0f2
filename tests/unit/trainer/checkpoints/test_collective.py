"""What torch.distributed.checkpoint reports, as one sentence."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest
from torch.distributed.checkpoint.api import CheckpointException

from configs.errors import EXIT_FAILURE, EXIT_REFUSED, ChorusError
from trainer.checkpoints.collective import one_sentence


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def of_rank_3(error: BaseException) -> CheckpointException:
    return CheckpointException("write", {3: (error, traceback.StackSummary.from_list([]))})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError("no space\n   left"), EXIT_FAILURE),  # another try may find room
        (ValueError("no space\nleft"), EXIT_REFUSED),  # the checkpoint is not what it should be
    ],
)
def test_what_fails_is_one_sentence(error: Exception, code: int) -> None:
    one_sentence("load a", lambda: None)
    with pytest.raises(ChorusError, match=r"^cannot load a: no space left$") as here:
        one_sentence("load a", failing(error))
    assert not isinstance(of_rank_3(error), Exception)
    with pytest.raises(ChorusError, match=r"^cannot save a: rank 3: no space left$") as there:
        one_sentence("save a", failing(of_rank_3(error)))
    assert here.value.exit_code == there.value.exit_code == code


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), of_rank_3(KeyboardInterrupt()), of_rank_3(SystemExit())])
def test_a_stop_is_not_a_failed_checkpoint(stop: BaseException) -> None:
    with pytest.raises(KeyboardInterrupt):
        one_sentence("save a", failing(stop))


def test_a_lost_peer_stays_what_it_is() -> None:
    lost = RuntimeError("Connection closed by peer [127.0.0.1]:4321")
    with pytest.raises(RuntimeError) as raised:
        one_sentence("load a", failing(lost))
    assert raised.value is lost
    with pytest.raises(ChorusError) as told:
        one_sentence("load a", failing(of_rank_3(lost)))
    assert told.value.exit_code == EXIT_FAILURE
