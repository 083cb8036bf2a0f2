"""RankPool: processes that run functions together as the ranks of a gloo job, started once for many tests."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_SECONDS = 120


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RankPool:
    """`world_size` processes, each inside an open Runtime; they take themselves to be on hosts of `ranks_per_host`.

    A function given to `run` must be importable, and takes the rank's Runtime first.
    """

    def __init__(self, world_size: int, *, ranks_per_host: int | None = None) -> None:
        self.world_size = world_size
        local_world_size = ranks_per_host or world_size
        context = multiprocessing.get_context("spawn")
        port = free_port()
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(ROOT)
        self._connections, self._processes = [], []
        for rank in range(world_size):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, world_size, local_world_size, port, there), daemon=True
            )
            process.start()
            there.close()
            self._connections.append(here)
            self._processes.append(process)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What the function returns on each rank, by rank; an error on any rank is raised here."""
        for connection in self._connections:
            connection.send((function, args))
        results, problems = [], []
        for rank, connection in enumerate(self._connections):
            if not connection.poll(_TIMEOUT_SECONDS):
                raise TimeoutError(f"rank {rank} gave no answer to {function.__name__}")
            done, value = connection.recv()
            (results if done else problems).append(value)
        if problems:
            raise AssertionError("\n".join(problems))
        return results

    def close(self) -> None:
        """Ends the processes."""
        for connection in self._connections:
            connection.send(None)
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.kill()


def _serve(rank: int, world_size: int, local_world_size: int, port: int, connection: Connection) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % local_world_size),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(local_world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    # Collecting between imports finds nothing, and later on the collector need not go through what they made.
    gc.disable()
    import trainer.assembly  # noqa: F401
    from configs.schema import Run
    from trainer.failures import leave
    from trainer.runtime import Runtime

    gc.freeze()
    gc.enable()
    with Runtime(Run(timeout_seconds=60, device="cpu")) as runtime:
        while (job := connection.recv()) is not None:
            function, args = job
            try:
                connection.send((True, function(runtime, *args)))
            except Exception:
                connection.send((False, f"rank {rank}:\n{traceback.format_exc()}"))
            # A run that fails ends its process, and leaves its limit as it was; here a long wait may follow.
            runtime._of_watchdog.limit = (0.0, "")
    leave(0)
