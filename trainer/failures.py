"""What a program says and returns when it is refused or fails."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from configs.errors import EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError

_PEER_LOST = re.compile(
    r"Connection (closed|reset)|Broken pipe|Timed out waiting|connectFullMesh|remote process exited|DistBackendError"
    r"|NCCL (error|watchdog)|recvBytes|Socket (Timeout|closed)",
    re.IGNORECASE,
)


def lost_a_peer(error: BaseException) -> bool:
    """Whether the error only tells that another rank ended or hangs."""
    return (
        isinstance(error, RuntimeError) and not isinstance(error, ChorusError) and bool(_PEER_LOST.search(str(error)))
    )


def _of_the_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.filename is not None and error.strerror is not None


def failure_sentence(error: BaseException) -> str:
    """One sentence for the user."""
    if lost_a_peer(error):
        return "another rank ended or does not answer; its own message, above or below, is the reason"
    if isinstance(error, ChorusError):
        return str(error)
    if _of_the_disk(error):
        return f"{error.filename}: {error.strerror}"  # type: ignore[attr-defined]
    return f"{type(error).__name__}: {error}"


def guard(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Runs a program's `main` and gives its exit code.

    A `ChorusError` is one sentence on stderr, said by one rank of the job; with run.errors =
    "traceback" the traceback follows. Other errors are ours and show theirs always.
    """
    try:
        return main(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        first = getattr(error, "first_report", os.environ.get("LOCAL_RANK", "0") == "0")
        expected = isinstance(error, ChorusError) or lost_a_peer(error) or _of_the_disk(error)
        if first:
            print(f"error: {failure_sentence(error)}", file=sys.stderr, flush=True)
            asked = getattr(error, "wants_traceback", False) or "--run.errors=traceback" in argv
            if not expected or asked:
                traceback.print_exception(error)
        return error.exit_code if isinstance(error, ChorusError) else EXIT_FAILURE
