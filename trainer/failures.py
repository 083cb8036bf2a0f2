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
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped before anything was finished; the same command starts again"
    if _of_the_disk(error):
        return f"{error.filename}: {error.strerror}"  # type: ignore[attr-defined]
    return f"{type(error).__name__}: {error}"


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error ends a program with."""
    if isinstance(error, ChorusError):
        return error.exit_code
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else EXIT_FAILURE


def guard(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Runs a program's `main` and gives its exit code.

    A `ChorusError` is one sentence on stderr, said by one rank of the job; with run.errors =
    "traceback" the traceback follows. Other errors are ours and show theirs always.
    """
    try:
        return main(argv)
    except KeyboardInterrupt as error:
        if _is_first_report(error):
            print(f"error: {failure_sentence(error)}", file=sys.stderr, flush=True)
        return exit_code_of(error)
    except Exception as error:
        expected = isinstance(error, ChorusError) or lost_a_peer(error) or _of_the_disk(error)
        if _is_first_report(error):
            print(f"error: {failure_sentence(error)}", file=sys.stderr, flush=True)
            asked = getattr(error, "wants_traceback", False) or "--run.errors=traceback" in argv
            if not expected or asked:
                traceback.print_exception(error)
        return exit_code_of(error)


def _is_first_report(error: BaseException) -> bool:
    """Whether this rank tells; before the ranks have found each other, the first of each host does."""
    return bool(getattr(error, "first_report", os.environ.get("LOCAL_RANK", "0") == "0"))
