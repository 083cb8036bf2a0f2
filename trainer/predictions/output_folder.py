"""OutputFolder: where a scoring job writes, so that a start after any end does only what is missing.

DIR/unfinished/plan.json            what decides the bytes; written first
DIR/PART-FIRSTROW.parquet           a finished range
DIR/unfinished/PART-FIRSTROW.json   its record, written after it: what has none is scored again
DIR/unfinished/prepared             raw input, as it was prepared
DIR/manifest.json                   all ranges are there; written last, then unfinished/ goes
"""

from __future__ import annotations

import errno
import json
import re
import time
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from configs.errors import ChorusError, DataError
from trainer import storage
from trainer.data.preparing.prepared_folder import QUARANTINE_NAME, difference
from trainer.long_work import long_from_main
from trainer.predictions.completeness import WholePart, problems_of
from trainer.predictions.manifest import MANIFEST_NAME, PredictionFile, PredictionManifest
from trainer.predictions.range_files import RECORDS_FOLDER, holds, read_record, record_path
from trainer.predictions.row_ranges import RowRange
from trainer.runtime import Runtime

PLAN_NAME = "plan.json"
_RANGE = r".+-\d{12}"
_OWN_NAME = re.compile(
    rf"{_RANGE}\.parquet(\.tmp)?|{re.escape(MANIFEST_NAME)}\.tmp|{RECORDS_FOLDER}|{re.escape(QUARANTINE_NAME)}"
)
_RECORD_NAME = re.compile(rf"{_RANGE}\.json(\.tmp)?")
_LOCK_SECONDS = 30.0  # in which an earlier start that is ending has ended
_SAY_SECONDS = 5.0
_LONGEST = 60  # characters of a value in a sentence

ManifestMaker = Callable[[tuple[PredictionFile, ...], Callable[[str], None]], PredictionManifest]


class OutputFolder:
    """The folder of one scoring job, a context manager. All ranks enter it; its methods are collectives.

    A local folder is this job's alone while it lasts; on s3:// two jobs in one folder are not kept apart.

    Args:
        path: The folder.
        runtime: This process.
    """

    def __init__(self, path: str, *, runtime: Runtime) -> None:
        self.path = path
        self._runtime = runtime
        self._lock: int | None = None

    def __enter__(self) -> OutputFolder:
        """Takes the folder.

        Raises:
            DataError: it holds finished predictions or what is not ours, or another job writes there.
        """
        self._runtime.from_main(self._claim)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._lock is not None:
            storage.unlock(self._lock)
            self._lock = None
        goes_on = "the same command goes on from the ranges that are finished"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"stopped; {self.path} is not finished, {goes_on}") from error
        if isinstance(error, OSError) and str(error.filename or "").startswith(self.path):
            remedy = "correct it"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                remedy = "make room"
            # Without the file's name and what is free: the ranks then say the same, and it is said once.
            raise ChorusError(f"--output: {self.path!r}: {error.strerror}; {remedy}, {goes_on}") from error

    def _claim(self) -> None:
        if storage.is_file(self.path):
            raise DataError(f"--output: {self.path!r} is a file; name a folder")
        self._refuse_finished()
        names = storage.names(self.path)
        foreign = [name for name in names if not _OWN_NAME.fullmatch(name)]
        if foreign:
            raise DataError(
                f"--output: {self.path!r} holds {foreign[0]!r}, which is no prediction file; give an empty folder"
            )
        if names and RECORDS_FOLDER not in names:
            raise DataError(
                f"--output: {self.path!r} holds {names[0]!r}, but nothing that says which job left it there; give an"
                " empty folder"
            )
        storage.make_folder(self.path)
        self._take_lock()
        self._refuse_finished()  # by the job that has just ended

    def _refuse_finished(self) -> None:
        if storage.is_file(storage.join(self.path, MANIFEST_NAME)):
            self._tidy()
            raise DataError(f"--output: {self.path!r} holds finished predictions; give another folder, or delete it")

    def _tidy(self) -> None:
        """Takes away what a kill behind the manifest left."""
        records = storage.join(self.path, RECORDS_FOLDER)
        if storage.is_remote(self.path) or not storage.exists(records):
            return
        lock = self._lock if self._lock is not None else storage.try_to_lock(self.path)
        if lock is not None:  # else the job is about to do it
            storage.remove_tree(records)
            if lock != self._lock:
                storage.unlock(lock)

    def _take_lock(self) -> None:
        if storage.is_remote(self.path):
            return
        began = time.monotonic()
        self._lock = storage.try_to_lock(self.path)
        if self._lock is None:
            self._runtime.say(f"waiting for another job, which still writes in {self.path}")
        while self._lock is None:
            if time.monotonic() > began + _LOCK_SECONDS:
                raise DataError(
                    f"--output: another job writes in {self.path!r} right now; wait for its end, or give another folder"
                )
            time.sleep(0.2)
            self._lock = storage.try_to_lock(self.path)

    def begin(self, decides: Mapping[str, Any], *, ranges: Sequence[RowRange]) -> frozenset[str]:
        """Names of the ranges that an earlier start with the same plan has finished.

        Args:
            decides: What decides the bytes, as JSON has it.
            ranges: All ranges of the job.

        Raises:
            DataError: the folder holds an unfinished job with another plan.
        """
        done: frozenset[str] = long_from_main(
            lambda beat: self._begin(decides, ranges=ranges, beat=beat),
            doing="what is there already",
            runtime=self._runtime,
        )
        if done:
            self._runtime.say(f"{len(done):,} of {len(ranges):,} ranges are there already: {self.path}")
        return done

    def _begin(
        self, decides: Mapping[str, Any], *, ranges: Sequence[RowRange], beat: Callable[[str], None]
    ) -> frozenset[str]:
        records = storage.join(self.path, RECORDS_FOLDER)
        storage.make_folder(records)
        there = set(storage.names(records))
        plan_path = storage.join(records, PLAN_NAME)
        if PLAN_NAME in there:
            self._refuse_other_plan(storage.read_text(plan_path), decides)
        else:  # records without a plan prove nothing
            for name in (name for name in there if _RECORD_NAME.fullmatch(name)):
                storage.remove_file(storage.join(records, name))
            there = set()
            storage.write_json(plan_path, decides)
        for folder in (self.path, records):
            for name in storage.names(folder):
                if name.endswith(".tmp"):
                    storage.remove_file(storage.join(folder, name))
        recorded = [rows for rows in ranges if f"{rows.name}.json" in there]
        done = self._sound(recorded, beat=beat)
        damaged = len(recorded) - len(done)
        if damaged:
            self._runtime.say(f"{damaged:,} of {len(ranges):,} ranges are damaged and scored again: {self.path}")
        return done

    def _sound(self, ranges: Sequence[RowRange], *, beat: Callable[[str], None]) -> frozenset[str]:
        """Names of those whose file is as its record says; the records of the others go."""
        files, done, last = set(storage.names(self.path)), set(), time.monotonic()
        for place, rows in enumerate(ranges):
            if time.monotonic() - last >= _SAY_SECONDS:
                last = time.monotonic()
                self._runtime.say(f"looked at {place:,} of {len(ranges):,} ranges that are there")
            if self._is_done(rows, files=files, beat=beat):
                done.add(rows.name)
        return frozenset(done)

    def _refuse_other_plan(self, text: str, decides: Mapping[str, Any]) -> None:
        try:
            kept = json.loads(text)
        except ValueError:
            kept = None
        if not isinstance(kept, dict):
            raise DataError(
                f"--output: {self.path!r} holds an unfinished job whose {RECORDS_FOLDER}/{PLAN_NAME} is damaged; give"
                " another folder, or delete it"
            )
        wanted = json.loads(json.dumps(decides))
        if kept != wanted:
            key, before, now = difference("", kept, wanted)
            key = key.lstrip(".") or PLAN_NAME
            raise DataError(
                f"--output: {self.path!r} holds an unfinished job with {key} {_told(before)}, not {_told(now)}; give"
                " what it was started with to go on, or another folder, or delete it"
            )

    def _is_done(self, rows: RowRange, *, files: Collection[str], beat: Callable[[str], None]) -> bool:
        """Whether the range's file is there as its record says; a record that is wrong goes."""
        beat(f"looking at {rows.name}")
        file = read_record(self.path, rows)
        if file and file.path in files and holds(self.path, file, beat=beat):
            return True
        # Before the file is there again: it may get other bytes, of the same number.
        storage.remove_file(record_path(self.path, rows))
        return False

    def finish(
        self,
        ranges: Sequence[RowRange],
        *,
        parts: Mapping[str, WholePart],
        manifest: ManifestMaker,
    ) -> PredictionManifest:
        """Checks from the records that all rows are there once, and writes the manifest.

        Args:
            ranges: All ranges of the job, in order.
            parts: What each part must come to.
            manifest: Makes the manifest of the files, figures included; called on rank 0, with what it must call now
                and then.

        Raises:
            DataError: rows are missing or doubled, or labels are not the data's.
        """
        finished: PredictionManifest = long_from_main(
            lambda beat: self._finish(ranges, parts=parts, manifest=manifest, beat=beat),
            doing="figures",
            runtime=self._runtime,
        )
        return finished

    def _finish(
        self,
        ranges: Sequence[RowRange],
        *,
        parts: Mapping[str, WholePart],
        manifest: ManifestMaker,
        beat: Callable[[str], None],
    ) -> PredictionManifest:
        files = []
        for rows in ranges:
            beat(f"checking {rows.name}")
            file = read_record(self.path, rows)
            if file is not None:
                files.append(file)
        problems = problems_of(files, parts, beat=beat)
        if problems:
            raise DataError(f"{self.path}: {problems[0]}; score into another folder")
        finished = manifest(tuple(files), beat)
        finished.write(self.path)
        storage.remove_tree(storage.join(self.path, RECORDS_FOLDER))
        return finished


def _told(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
