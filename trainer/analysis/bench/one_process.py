"""Runs a function in a fresh process of its own, on one core where asked, so that measurements do not touch."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from configs.errors import ChorusError
from trainer.quiet_libraries import silence

# Libraries read these when they are imported, which the new process does when it has got them.
_THREADS = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def in_one_process(function: Callable[..., Any], *arguments: Any, one_core: bool = False) -> Any:
    """Calls a function of a module; its arguments and what it gives are pickled.

    Args:
        function: What is called.
        arguments: Its arguments.
        one_core: Whether the process stays on one core, with one thread for each library.

    Raises:
        ChorusError: as the function raises, or its process ended early.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, one_core, function, arguments))
    before = {name: os.environ.get(name) for name in _THREADS}
    try:
        if one_core:
            os.environ.update(dict.fromkeys(_THREADS, "1"))
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        answer = None
    except BaseException:
        process.terminate()
        raise
    process.join()
    if answer is None:
        raise ChorusError(
            f"{function.__name__}: its process ended with code {process.exitcode}; see what it said above"
        )
    error, result = answer
    if error is not None:
        raise error
    return result


def _call(connection: Connection, one_core: bool, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    silence()
    try:
        connection.send((None, function(*arguments)))
    except ChorusError as error:
        connection.send((error, None))
    except KeyboardInterrupt:
        sys.exit(1)
