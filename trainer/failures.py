"""What a program says and returns when it is refused or fails."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from configs.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_NOTHING_FITS, EXIT_REFUSED, ChorusError
from trainer import launcher

_PEER_LOST = re.compile(
    r"Connection (closed|reset)|Broken pipe|Timed out waiting|connectFullMesh|remote process exited|DistBackendError"
    r"|NCCL (error|watchdog)|recvBytes|Socket (Timeout|closed)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What is known of an error beyond itself; carried by it as `explanation`."""

    sentence: str
    exit_code: int
    is_first: bool  # whether this rank tells it
    wants_traceback: bool


def explanation_of(error: BaseException) -> Explanation | None:
    """What was found out about the error."""
    return getattr(error, "explanation", None)


def is_refusal(exit_code: int) -> bool:
    """Whether the same start would end in the same way."""
    return exit_code in (EXIT_REFUSED, EXIT_NOTHING_FITS)


def lost_a_peer(error: BaseException) -> bool:
    """Whether the error only tells that another rank ended or hangs."""
    if isinstance(error, ChorusError):  # such as a checkpoint that could not be agreed on
        return error.__cause__ is not None and lost_a_peer(error.__cause__)
    # A checkpoint's exception is no Exception.
    ours = isinstance(error, RuntimeError) or type(error).__name__ == "CheckpointException"
    return ours and bool(_PEER_LOST.search(str(error)))


def timed_out(error: BaseException) -> bool:
    """Whether another rank counts as lost because it did not come in time."""
    return "timed out" in f"{error} {error.__cause__}".lower()


def _of_the_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.filename is not None and error.strerror is not None


def failure_sentence(error: BaseException) -> str:
    """One sentence for the user."""
    explanation = explanation_of(error)
    if explanation is not None:
        return explanation.sentence
    if lost_a_peer(error):
        return "another rank ended or does not answer; its own message, above or below, is the reason"
    if isinstance(error, ChorusError):
        return str(error)
    if isinstance(error, KeyboardInterrupt) and str(error):  # whoever passed it on knows what is left
        return str(error)
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped before anything was finished; the same command starts again"
    if _of_the_disk(error):
        return f"{error.filename}: {error.strerror}"  # type: ignore[attr-defined]
    return f"{type(error).__name__}: {error}"


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error ends a program with."""
    explanation = explanation_of(error)
    if explanation is not None:
        return explanation.exit_code
    if isinstance(error, ChorusError):
        return error.exit_code
    return EXIT_INTERRUPTED if isinstance(error, KeyboardInterrupt | SystemExit) else EXIT_FAILURE


def tell(sentence: str) -> None:
    """Writes an error's sentence to stderr, its line in one piece.

    `print` gives an unbuffered stream the text and the end of the line apart, and other processes write between them.
    """
    sys.stderr.write(f"error: {sentence}\n")
    sys.stderr.flush()


def guard(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Runs a program's `main` and gives its exit code.

    A `ChorusError` is one sentence on stderr, said by one rank of the job; with run.errors =
    "traceback" the traceback follows. Other errors are ours and show theirs always.
    """
    try:
        return main(argv)
    except KeyboardInterrupt as error:
        if _is_first_report(error):
            tell(failure_sentence(error))
        return exit_code_of(error)
    except Exception as error:
        expected = isinstance(error, ChorusError) or lost_a_peer(error) or _of_the_disk(error)
        if _is_first_report(error):
            tell(failure_sentence(error))
            explanation = explanation_of(error)
            asked = (explanation and explanation.wants_traceback) or "--run.errors=traceback" in argv
            if not expected or asked:
                traceback.print_exception(error)
        if explanation_of(error) is None and is_refusal(exit_code_of(error)) and _is_first_report(error):
            launcher.forbid_restart()  # refused before the ranks have found each other, and so by all of them
        return exit_code_of(error)


def leave(code: int) -> NoReturn:
    """Ends the process with this code, after all that Python does at its end but taking itself apart.

    That takes 1 to 2 s where torch and TorchRec are loaded, for nothing.
    A thread that comes back from a library into an interpreter that is being taken apart is ended by CPython
    (pthread_exit up to 3.13). Where C++ frames of the library lie on its stack, as with the threads of gloo, of
    autograd or a daemon thread inside a torch operation, that ends the whole process: "terminate called without an
    active exception", SIGABRT, after a run that was done (https://github.com/python/cpython/issues/87135).
    """
    # The interpreter's own order: threads that are no daemons, then what was registered for the end.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it is gone; closed
            stream.flush()
    os._exit(code)


def _is_first_report(error: BaseException) -> bool:
    """Whether this rank tells; before the ranks have found each other, the first of each host does."""
    explanation = explanation_of(error)
    return os.environ.get("LOCAL_RANK", "0") == "0" if explanation is None else explanation.is_first
