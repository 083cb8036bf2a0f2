"""RunCheckpoints: the checkpoints of one run: writing them, also while training goes on, and keeping the right ones."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch.distributed.checkpoint as dcp

from configs.errors import CheckpointError, ChorusError
from configs.training_schema import Checkpoint
from trainer import storage
from trainer.checkpoints.collective import one_sentence
from trainer.checkpoints.manifest import (
    MANIFEST_NAME,
    STATE_NAME,
    STEP_PREFIX,
    CheckpointManifest,
    OtherVersionError,
    proof_of,
    read_manifest,
    step_names,
    verify,
    write_manifest,
)
from trainer.checkpoints.pieces import SavePlanner, State
from trainer.checkpoints.staging import Staging
from trainer.checkpoints.state_files import StateWriter
from trainer.failures import lost_a_peer
from trainer.votes import Ranks

_IDLE_SECONDS = 30.0  # for which a run that fails waits for a checkpoint that does not move


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run at one step: what a checkpoint is made of."""

    state: State  # live
    facts: Mapping[str, Any]  # the manifest's fields, without folder, files and world_size
    texts: Mapping[str, str]  # file name -> text, as run.toml and plan.json


class RunCheckpoints:
    """The checkpoints of a run, in one folder, a folder each.

    Args:
        folder: Where they are.
        section: What to keep, and whether to write in the background.
        ranks: All ranks, with a process group that nothing else uses while a checkpoint is written.
        watched: The figure that snapshots' quality is; checkpoints of another one are not compared with it.
    """

    def __init__(self, *, folder: str, section: Checkpoint, ranks: Ranks, watched: str = "") -> None:
        self.folder = folder
        self._section = section
        self._ranks = ranks
        self._watched = watched
        self._staging = Staging()
        self._writing: Future[None] | None = None
        self._blocks_written = 0
        self._damaged: set[str] = set()  # names passed over at the start
        self.seconds_waited = 0.0  # that training was held up by all of them

    def save(self, snapshot: Snapshot) -> None:
        """Begins a checkpoint, and ends the one before it. With `background` it is written while training goes on.

        All ranks must call this.

        Raises:
            ChorusError: this or the one before could not be written.
        """
        began = time.monotonic()
        self.wait()
        if self._section.background:
            snapshot = dataclasses.replace(snapshot, state=self._staging.copy(snapshot.state))
            self._writing = self._in_thread(lambda: self._write(snapshot, began))
        else:
            self._write(snapshot, began)
        self.seconds_waited += time.monotonic() - began

    def _in_thread(self, do: Callable[[], None]) -> Future[None]:
        """Not an executor's thread: a process that fails must not wait at its end for ranks that hang."""
        done: Future[None] = Future()

        def work() -> None:
            try:
                do()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        threading.Thread(target=work, name="checkpoint", daemon=True).start()
        return done

    def wait(self) -> None:
        """Returns once nothing is being written.

        Raises:
            ChorusError: it could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            blocks = -1
            while not writing.done():
                if blocks != self._blocks_written:  # it takes long and goes on
                    blocks = self._blocks_written
                    self._ranks.beat("waiting for a checkpoint being written")
                futures.wait([writing], timeout=1.0)
            writing.result()

    @contextlib.contextmanager
    def ended_before_failing(self) -> Iterator[None]:
        """A block whose failure first lets the checkpoint being written end: whole, or removed for want of room.

        Not where a rank is lost, without which none can end, nor on Ctrl-C.
        """
        try:
            yield
        except Exception as error:
            if not lost_a_peer(error):
                self._let_end()
            raise

    def _let_end(self) -> None:
        blocks, moved_at = self._blocks_written, time.monotonic()
        while self._writing is not None and not self._writing.done() and time.monotonic() < moved_at + _IDLE_SECONDS:
            self._ranks.beat("ending a checkpoint before failing")
            futures.wait([self._writing], timeout=1.0)
            if blocks != self._blocks_written:
                blocks, moved_at = self._blocks_written, time.monotonic()

    def _count_block(self) -> None:
        self._blocks_written += 1

    @property
    def has_failed(self) -> bool:
        """Whether the one being written has failed; `wait` tells why, on every rank."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def _write(self, snapshot: Snapshot, began: float) -> None:
        """Files, then the vote of all ranks, then the manifest; what cannot be finished is removed."""
        ranks = self._ranks
        folder = storage.join(self.folder, _name(snapshot.facts["step"]))
        state = storage.join(folder, STATE_NAME)
        ranks.from_main(lambda: self._start(folder))
        writer = StateWriter(state, on_block=self._count_block)
        facts = dict(snapshot.facts) | {"world_size": ranks.world_size, "watched": self._watched}

        def complete() -> int:
            files = {storage.join(STATE_NAME, name): proof for name, proof in writer.files.items()}
            for name, text in snapshot.texts.items():
                storage.write_text(storage.join(folder, name), text)
                files[name] = proof_of(storage.join(folder, name))
            write_manifest(CheckpointManifest(folder=folder, files=files, **facts))
            return sum(proof["num_bytes"] for proof in files.values())

        def write() -> int:
            dcp.save(
                dict(snapshot.state), storage_writer=writer, planner=SavePlanner(), process_group=ranks.process_group
            )
            return int(ranks.from_main(complete))

        try:
            num_bytes = one_sentence(f"save {folder}", write)
        except ChorusError as error:  # nothing was refused: the disk or a rank failed
            with contextlib.suppress(OSError):
                ranks.from_main(functools.partial(storage.remove_tree, folder))  # its room may be what is missing
            is_full = os.strerror(errno.ENOSPC).lower() in str(error).lower()
            raise ChorusError(f"{error}{storage.room(self.folder) if is_full else ''}") from error

        def finish() -> None:
            self._forget_others(snapshot.facts["step"])
            print(
                f"checkpoint: {folder}  ({num_bytes / 2**20:,.1f} MiB in {time.monotonic() - began:.1f} s)", flush=True
            )

        ranks.from_main(finish)

    def _start(self, folder: str) -> None:
        whole = self.whole()
        for name in self._all():
            if name not in whole:  # nobody can use it, and it may take the room that this one needs
                self._remove(name)
        if storage.exists(folder):  # the run was taken back to an earlier step
            self._remove(storage.base_name(folder))
        storage.make_folder(storage.join(folder, STATE_NAME))

    def _remove(self, name: str) -> None:
        """The manifest goes first: what is cut off in the middle must not look whole."""
        folder = storage.join(self.folder, name)
        if storage.is_file(storage.join(folder, MANIFEST_NAME)):
            storage.remove_file(storage.join(folder, MANIFEST_NAME))
        if storage.exists(folder):  # on S3 it is gone with its last file
            storage.remove_tree(folder)

    def _forget_others(self, step: int) -> None:
        """Keeps the newest up to `step` and the best, of those that were not passed over at the start; later ones
        were, too."""
        newest = _name(step)
        self._damaged.discard(newest)
        names = [name for name in self.whole() if name <= newest and name not in self._damaged]
        kept = set(names[-self._section.keep_last :])
        if self._section.keep_best:
            kept |= {name for _, name in self._by_quality(names)[: self._section.keep_best]}
        for name in self._all():
            if name not in kept:
                self._remove(name)

    def _by_quality(self, names: list[str]) -> list[tuple[float, str]]:
        """(quality, name), the best first; of equals the older, which a later one did not improve on."""
        found = []
        for name in names:
            with contextlib.suppress(CheckpointError):  # a damaged one is no reason to end a run that goes well
                manifest = read_manifest(storage.join(self.folder, name))
                if manifest.quality is not None and manifest.watched == self._watched:
                    found.append((manifest.quality, name))
        return sorted(found, key=lambda pair: -pair[0])

    def is_among_best(self, quality: float) -> bool:
        """Whether a checkpoint of that quality would be kept as one of the best. All ranks must call this."""

        def compare() -> bool:
            names = [name for name in self.whole() if name not in self._damaged]
            best = self._by_quality(names)[: self._section.keep_best]
            return len(best) < self._section.keep_best or any(quality > other for other, _ in best)

        self.wait()  # it may be one of the best
        return self._section.keep_best > 0 and bool(self._ranks.from_main(compare))

    def whole(self) -> list[str]:
        """Names of the checkpoints that have a manifest, oldest first."""
        return [name for name in self._all() if storage.is_file(storage.join(self.folder, name, MANIFEST_NAME))]

    def _forget_unfinished(self) -> list[str]:
        """They are of no use, and their room may be what a run died of."""
        whole = self.whole()
        unfinished = [name for name in self._all() if name not in whole]
        for name in unfinished:
            self._remove(name)
        return unfinished

    def _all(self) -> list[str]:
        """Also the unfinished."""
        return step_names(self.folder)

    def newest(self, *, say: Callable[[str], None]) -> CheckpointManifest | None:
        """The newest checkpoint whose files are as written; damaged ones are named and passed over. A collective.

        Raises:
            CheckpointError: there are checkpoints, and all are damaged or one is of another version.
        """
        ranks = self._ranks
        for name in ranks.from_main(self._forget_unfinished):
            say(f"passing over a checkpoint: {storage.join(self.folder, name)} was not finished; it is removed")
        whole: list[str] = ranks.from_main(self.whole)
        for name in reversed(whole):
            folder = storage.join(self.folder, name)
            try:
                manifest: CheckpointManifest = ranks.from_main(functools.partial(read_manifest, folder))
                verify(manifest, ranks=ranks)
                return manifest
            except OtherVersionError:  # whole, and it would be deleted once a newer one is there
                raise
            except CheckpointError as error:
                self._damaged.add(name)
                say(f"passing over a checkpoint: {error}")
        if whole:
            raise CheckpointError(
                f"{self.folder}: all {len(whole)} checkpoints are damaged; give another run.folder to start anew"
            )
        return None


def _name(step: int) -> str:
    return f"{STEP_PREFIX}{step:010d}"
