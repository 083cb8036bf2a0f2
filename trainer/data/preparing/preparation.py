"""Preparation: logs and tables into the one prepared format, its manifest written last.

    parse       every piece of every file: rows into scratch, bad lines aside, values counted
    count       the values, where the parts to count are only known once all rows are
    dictionary  from the counts of all pieces, or from another folder's dictionaries
    write       rows with their ids to their places in the parts' files
    expand      bags written out, where that is wished for
    seal        the files' hashes, then the manifest

Every stage is made of jobs that leave a record when they are done, so a preparation that was stopped anywhere goes on
with what is missing, and ends in the same bytes.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Sequence
from typing import Literal

from configs.errors import ChorusError, DataError
from trainer import storage
from trainer.data.manifest import DataManifest, Part, PartFile
from trainer.data.preparing.accounting import InputAccount, account_for
from trainer.data.preparing.part_files import PartFiles, bag_totals, features_of
from trainer.data.preparing.part_writing import PieceToWrite, SealJob, WriteJob
from trainer.data.preparing.piece_parsing import CountJob, ParseJob
from trainer.data.preparing.pieces import WRITTEN, PieceName, PieceRecord
from trainer.data.preparing.preparation_settings import PreparationSettings
from trainer.data.preparing.prepared_folder import InputFile, PreparedFolder
from trainer.data.preparing.splits import BoundSplit, PieceRows
from trainer.data.preparing.stages import FinishedElsewhere, OnProgress, Stages
from trainer.data.preparing.vocabulary import Vocabulary
from trainer.data.preparing.vocabulary_making import VocabularyMaking

_BYTES_WORTH_A_PROCESS = 16 << 20


def already_prepared(settings: PreparationSettings) -> DataManifest | None:
    """The manifest of the output if it is finished and made from these inputs with these settings, else None.

    Raises:
        DataError: a setting is wrong, an input is missing, or the folder holds something else.
    """
    return _finished(settings, _folder(settings))


def prepare(
    settings: PreparationSettings, *, overwrite: bool = False, on_progress: OnProgress | None = None
) -> DataManifest:
    """Prepares; goes on where an interrupted preparation of the same settings stopped.

    Args:
        settings: What and how.
        overwrite: Whether data prepared with other inputs or settings are replaced.
        on_progress: Called now and then.

    Returns:
        The manifest; the one that is there already where inputs and settings are the same.

    Raises:
        DataError: a wrong setting, too many bad lines, or an output folder that must not be touched.
        ChorusError: the output cannot be written, or a process was killed.
    """
    folder = _folder(settings)
    if not overwrite:
        finished = _finished(settings, folder)
        if finished is not None:
            return finished
    stages = Stages(
        num_workers=_num_workers(settings),
        finished=None if settings.shard[1] == 1 else folder.finished,
        on_progress=on_progress,
    )
    try:
        folder.claim(overwrite=overwrite, shard=settings.shard)
        return _Preparation(settings, folder, stages).run()
    except FinishedElsewhere as done:
        return done.result
    except OSError as error:
        raise ChorusError(_disk_sentence(error, settings.output)) from error
    finally:
        stages.close()
        folder.release()


def _disk_sentence(error: OSError, output: str) -> str:
    what = f"{error.filename or output}: {error.strerror or error}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{what}; correct it and run again: it goes on from what is done"
    room = storage.room(output) if storage.exists(output) else ""
    return f"{what}{room}; make room and run again: it goes on from what is done"


def _finished(settings: PreparationSettings, folder: PreparedFolder) -> DataManifest | None:
    manifest = folder.finished()
    if manifest is not None and settings.shard[0] == 0:
        folder.tidy()
    return manifest


def _num_workers(settings: PreparationSettings) -> int:
    """Processes worth starting for this much input."""
    total = sum(storage.num_bytes(path) for path in settings.inputs)
    return min(settings.workers_in_memory, max(1, total // _BYTES_WORTH_A_PROCESS))


def _folder(settings: PreparationSettings) -> PreparedFolder:
    inputs = [InputFile.look(path) for path in settings.inputs]
    for path in settings.inputs:  # before anything is written: a wrong file is told at once
        settings.input_format.num_pieces(path)
    return PreparedFolder(root=settings.output, settings=settings.provenance(), inputs=inputs)


class _Preparation:
    """One preparation at work."""

    def __init__(self, settings: PreparationSettings, folder: PreparedFolder, stages: Stages) -> None:
        self._settings = settings
        self._format = settings.input_format
        self._layout = settings.input_format.layout
        self._folder = folder
        self._scratch = folder.scratch
        self._stages = stages
        index, count = settings.shard
        self._mine = range(index, len(settings.inputs), count)
        self._leads = index == 0
        self._by_first_row = settings.vocabulary.rule.order == "first_row"
        self._known_pieces: dict[int, int] = {}

    def run(self) -> DataManifest:
        """All stages, in order."""
        making = VocabularyMaking(self._settings, scratch=self._scratch, stages=self._stages)
        known = making.known()
        self._parse(known)
        records: list[PieceRecord] = self._stages.wait(self._all_records, "parse")
        accounts = account_for(self._settings, self._folder, records)
        bound = self._settings.split.bind([_piece_rows(record) for record in records])
        vocabulary = known or making.from_counts(self._count(records, bound))
        self._write(records, bound, vocabulary)
        if not self._leads:  # which looks at no scratch file any more: they go as soon as the manifest is there
            self._stages.wait(lambda: None, "seal")
        label_sums = self._stages.wait(lambda: self._label_sums(records, bound), "write")
        return self._seal(bound, vocabulary, label_sums, making.sha256(), accounts)

    def _parse(self, known: Vocabulary | None) -> None:
        jobs, total = [], 0
        counted = self._counted_parts()
        for file in self._mine:
            done = self._done_pieces(file)
            number = self._num_pieces(file)
            size = self._folder.inputs[file].num_bytes
            template = ParseJob(
                input_format=self._format,
                path=self._settings.inputs[file],
                file=file,
                first_piece=0,
                done=frozenset(done),
                folder=self._scratch,
                keep_rows=self._settings.keep_rows,
                vocabulary=known if self._settings.keep_rows else None,
                counted_parts=counted[file] if known is None else (),
                by_first_row=self._by_first_row,
                max_bad_fraction=self._settings.max_bad_fraction,
            )
            if number is None:
                jobs.append(template)
                total += size
            else:
                left = [piece for piece in range(number) if piece not in done]
                jobs += [dataclasses.replace(template, first_piece=piece, done=frozenset()) for piece in left]
                total += size * len(left) // max(number, 1)
        for file, num_pieces in self._stages.run("parse", jobs, total=total, unit="bytes"):
            if self._num_pieces(file) is None:
                storage.write_json(self._end_path(file), {"num_pieces": num_pieces}, durable=False)

    def _counted_parts(self) -> list[tuple[int, ...] | None]:
        """For each file the parts whose values are counted while it is parsed: None all, () none."""
        split, counted = self._settings.split, self._settings.counted
        if split.kind == "file":
            return [None if name in counted else () for name in split.names]
        if set(counted) == set(split.names):
            return [None] * len(self._settings.inputs)
        chosen = tuple(split.names.index(name) for name in counted) if split.kind == "column" else ()
        return [chosen] * len(self._settings.inputs)

    def _end_path(self, file: int) -> str:
        return storage.join(self._scratch, f"{PieceName(file=file, piece=0).file_prefix}end.json")

    def _num_pieces(self, file: int) -> int | None:
        """How many pieces a file has, as far as that is known."""
        if file not in self._known_pieces:
            number = self._format.num_pieces(self._settings.inputs[file])
            path = self._end_path(file)
            if number is None and storage.is_file(path):
                number = int(storage.read_json(path)["num_pieces"])
            if number is None:
                return None
            self._known_pieces[file] = number
        return self._known_pieces[file]

    def _done_pieces(self, file: int) -> set[int]:
        prefix = PieceName(file=file, piece=0).file_prefix + "p"
        found = set()
        for name in storage.names(self._scratch):
            number = name.removeprefix(prefix).removesuffix(".json")
            if name.startswith(prefix) and number.isdigit():
                piece = int(number)
                if PieceRecord.read(self._scratch, PieceName(file=file, piece=piece)) is not None:
                    found.add(piece)
        return found

    def _all_records(self) -> list[PieceRecord] | None:
        """The records of all pieces of all files in order, once they are there."""
        records = []
        for file in range(len(self._settings.inputs)):
            number = self._num_pieces(file)
            if number is None:
                return None
            for piece in range(number):
                record = PieceRecord.read(self._scratch, PieceName(file=file, piece=piece))
                if record is None:
                    return None
                records.append(record)
        return records

    def _count(self, records: list[PieceRecord], bound: BoundSplit) -> list[PieceRecord]:
        """Counts where it was not known while parsing which rows are counted; gives all records."""
        split = self._settings.split
        counted = {split.names.index(name) for name in self._settings.counted}
        jobs = []
        for record, cuts, first_row in zip(records, bound.cuts, bound.first_rows, strict=True):
            chosen = tuple(cut for cut in cuts if cut.part in counted)
            if record.runs is None and chosen and self._leads:
                assert not self._by_first_row, "the reference counts every row"
                jobs.append(
                    CountJob(
                        folder=self._scratch,
                        record=record,
                        layout=self._layout,
                        cuts=chosen,
                        split=split,
                        first_row=first_row,
                    )
                )
        total = sum(cut.num_rows for job in jobs for cut in job.cuts)
        changed = {record.name: record for record in self._stages.run("count", jobs, total=total)}
        return [changed.get(record.name, record) for record in records]

    def _write(self, records: Sequence[PieceRecord], bound: BoundSplit, known: Vocabulary) -> None:
        totals, starts = bag_totals(
            records, bound, split=self._settings.split, layout=self._layout, folder=self._scratch
        )
        files = PartFiles(root=self._folder.root, layout=self._layout, names=self._settings.split.names)
        made = storage.join(self._scratch, "parts_made.json")
        mode: Literal["make", "expect", "name"] = "expect" if storage.is_file(made) else "make"
        outputs = files.make(bound.num_rows, totals, mode=mode if self._leads else "name")
        if self._leads:
            storage.write_json(made, {})
        self._stages.wait(lambda: storage.is_file(made) or None, "write")
        least: dict[int, int] = {}
        for record in records:
            if record.dense_min is not None:
                least[record.name.file] = min(record.dense_min, least.get(record.name.file, record.dense_min))
        last_file = len(self._settings.inputs) - 1
        pieces: dict[int, list[PieceToWrite]] = {}
        for place, record in enumerate(records):
            file = record.name.file
            if file not in self._mine or storage.is_file(record.name.path(self._scratch, WRITTEN)):
                continue
            pieces.setdefault(file, []).append(
                PieceToWrite(
                    record=record,
                    first_row=bound.first_rows[place],
                    cuts=bound.cuts[place],
                    bag_starts=starts[place],
                    dense_offset=2 - least[file] if file in least else None,
                    round_to_float32=self._settings.mlperf_float32 and file != last_file,
                )
            )
        jobs = []
        for file, of_file in pieces.items():
            # Not as the settings say: the process that parsed a piece may have been told otherwise.
            groups = [[piece] for piece in of_file if piece.record.keeps_rows]
            again = [piece for piece in of_file if not piece.record.keeps_rows]
            # A gzip file is read from its beginning: all of its pieces go together.
            together = bool(again) and self._format.num_pieces(self._settings.inputs[file]) is None
            for group in [*groups, *([again] if together else [[piece] for piece in again])]:
                jobs.append(
                    WriteJob(
                        input_format=self._format,
                        path=self._settings.inputs[file],
                        pieces=tuple(group),
                        split=self._settings.split,
                        folder=self._scratch,
                        vocabulary=None if group[0].record.has_ids else known,
                        files=outputs,
                        missing_is_value=self._by_first_row,
                        rows_kept=group[0].record.keeps_rows,
                    )
                )
        total = sum(piece.record.num_rows for job in jobs for piece in job.pieces)
        for _ in self._stages.run("write", jobs, total=total):
            pass

    def _label_sums(self, records: Sequence[PieceRecord], bound: BoundSplit) -> list[int] | None:
        sums = [0] * len(bound.num_rows)
        for record in records:
            path = record.name.path(self._scratch, WRITTEN)
            if not storage.is_file(path):
                return None
            for part, total in storage.read_json(path).items():
                sums[int(part)] += total
        return sums

    def _seal(
        self,
        bound: BoundSplit,
        known: Vocabulary,
        label_sums: Sequence[int],
        sha256: str,
        accounts: Sequence[InputAccount],
    ) -> DataManifest:
        for entry in self._folder.inputs:
            if InputFile.look(entry.path) != entry:
                raise DataError(f"{entry.path}: changed while it was read; run again when it is whole")
        split = self._settings.split
        settings = self._settings
        features = features_of(self._layout, known, bag_sizes=settings.bag_sizes, stored=settings.materialise_bags)
        bags = tuple(feature.name for feature in features if feature.bag_size) if settings.materialise_bags else ()
        files = PartFiles(root=self._folder.root, layout=self._layout, names=split.names, stored_bags=bags)
        expanding = files.expand_jobs(features, scratch=self._scratch)
        for _ in self._stages.run("expand", expanding, total=len(bags) * sum(bound.num_rows)):
            pass
        jobs = [SealJob(path=path) for name in split.names for path in files.paths(name).values()]
        total = sum(storage.num_bytes(job.path) for job in jobs)
        sealed = {
            path: (size, digest) for path, size, digest in self._stages.run("seal", jobs, total=total, unit="bytes")
        }
        parts = []
        for name, num_rows, label_sum in zip(split.names, bound.num_rows, label_sums, strict=True):
            of_part = {
                role: PartFile(path=storage.base_name(path), num_bytes=sealed[path][0], sha256=sealed[path][1])
                for role, path in files.paths(name).items()
            }
            total_labels = label_sum if self._layout.has_labels else None
            parts.append(Part(name=name, num_rows=num_rows, label_sum=total_labels, files=of_part))
        manifest = DataManifest(
            features=features,
            parts=tuple(parts),
            dictionary_sha256=sha256,
            provenance={
                **self._settings.provenance(),
                "inputs": [
                    {**entry.as_dict(), **account.as_dict()}
                    for entry, account in zip(self._folder.inputs, accounts, strict=True)
                ],
            },
        )
        self._folder.finish(manifest)
        return manifest


def _piece_rows(record: PieceRecord) -> PieceRows:
    return PieceRows(file=record.name.file, num_rows=record.num_rows, rows_by_part=record.rows_by_part)
