"""RankProcesses: one process for each rank of this host, which measure the same thing at the same time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from configs.errors import ChorusError

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    import torch

    from trainer.runtime import Runtime

_MEET_SECONDS = 300.0
_END_SECONDS = 2.0
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_HEAP_BYTES, _BLOCK_BYTES = 384 << 20, 24 << 20
_GPUS = "CUDA_VISIBLE_DEVICES"


class RankHere:
    """One of the processes, as what it runs sees it.

    Args:
        rank: Its number on this host.
        num_ranks: How many there are.
        device: What it computes on.
        barrier: Where all of them meet.
    """

    def __init__(self, *, rank: int, num_ranks: int, device: torch.device, barrier: Barrier) -> None:
        self.rank, self.num_ranks, self.device = rank, num_ranks, device
        self._barrier = barrier
        self._has_heap = False

    def grow_heap(self) -> None:
        """Has a heap as large as training comes to in its first steps, so that its new pages are not counted."""
        if not self._has_heap and self.device.type == "cpu":
            import torch

            blocks = [torch.ones(_BLOCK_BYTES // 4) for _ in range(_HEAP_BYTES // _BLOCK_BYTES)]
            del blocks  # trainer/heap.py: it stays with the process
            self._has_heap = True

    def meet(self) -> None:
        """Waits for the others, so that all of them begin at once."""
        self._barrier.wait(_MEET_SECONDS)

    @contextlib.contextmanager
    def world(self, *, port: int) -> Iterator[Runtime]:
        """This process in an open Runtime with the others; with port 0 in one of its own.

        A process sees one GPU, so that to the Runtime each of them is a host.
        """
        from configs.schema import Run
        from trainer.runtime import Runtime

        alone = port == 0
        os.environ |= {
            "RANK": "0" if alone else str(self.rank),
            "WORLD_SIZE": "1" if alone else str(self.num_ranks),
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        with Runtime(Run(device="cpu" if self.device.type == "cpu" else "cuda")) as runtime:
            yield runtime


class RankProcesses:
    """The processes, each with one thread, as ranks are in training. Use it as a context manager.

    A function given to `run` is one of a module; it takes the RankHere first. What it takes and gives is pickled.

    Args:
        num_ranks: How many.
        device: `cpu`, or `cuda`: then each sees the GPU of its number alone.
    """

    def __init__(self, num_ranks: int, *, device: str) -> None:
        self.num_ranks, self.device = num_ranks, device
        context = multiprocessing.get_context("spawn")
        self._barrier = context.Barrier(num_ranks)
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(num_ranks):
            ours, theirs = context.Pipe()
            arguments = (rank, num_ranks, device, self._barrier, theirs)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            with _environment(dict.fromkeys(_ONE_THREAD, "1") | _one_gpu(rank, device=device)), _ctrl_c_withheld():
                process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)

    def __enter__(self) -> RankProcesses:
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._processes:
            process.kill()  # it holds nothing that anybody needs
        for process in self._processes:
            process.join()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What the function gives on each rank, by rank.

        Raises:
            ChorusError: as the function raises on any rank, or a process ended.
        """
        for rank, connection in enumerate(self._connections):
            try:
                connection.send((function, arguments))
            except OSError:
                raise self._lost(rank, function) from None
        answers = []
        for rank, connection in enumerate(self._connections):
            try:
                answers.append(connection.recv())
            except (EOFError, ConnectionError):
                raise self._lost(rank, function) from None
        # One that fails breaks the barrier, at which others fail then.
        errors = [error for error, _ in answers if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return [value for _, value in answers]

    def _lost(self, rank: int, function: Callable[..., Any]) -> ChorusError:
        self._processes[rank].join(_END_SECONDS)
        code = self._processes[rank].exitcode
        return ChorusError(
            f"{function.__name__}: the process of rank {rank} ended with code {code}; see what it said above, and where"
            " it said nothing, give fewer --ranks, which need less memory"
        )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _ctrl_c_withheld() -> Iterator[None]:
    """A process started in the block never sees Ctrl-C: whoever started it ends it."""
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # and a new process keeps it blocked
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables that a process started in the block finds; libraries read them when they are imported."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one_gpu(rank: int, *, device: str) -> dict[str, str]:
    if device == "cpu":
        return {}
    visible = os.environ.get(_GPUS, "")
    return {_GPUS: visible.split(",")[rank] if visible else str(rank)}


def _serve(rank: int, num_ranks: int, device: str, barrier: Barrier, connection: Connection) -> None:
    # Others, or work that lasts, would keep this process where the one that started it was killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    from trainer import quiet_libraries
    from trainer.heap import keep_freed_memory

    quiet_libraries.silence()
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    here = RankHere(rank=rank, num_ranks=num_ranks, device=torch.device(device), barrier=barrier)
    while True:
        function, arguments = connection.recv()
        try:
            connection.send((None, function(here, *arguments)))
        except (ChorusError, threading.BrokenBarrierError) as error:
            barrier.abort()
            connection.send((error, None))
        except Exception:
            barrier.abort()
            text = f"{function.__name__}: rank {rank} failed:\n{traceback.format_exc()}"
            connection.send((ChorusError(text), None))
