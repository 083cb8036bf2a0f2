"""Preparation: click logs into the one prepared format, its manifest written last.

The logs are read three times: to count lines, to build the dictionaries from the vocabulary parts, and to write. Memory
is that of a block of lines and of the dictionaries, whatever the size of the logs.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from configs.errors import ChorusError, DataError
from trainer.data.criteo import BLOCK_BYTES, NUM_SPARSE, SPARSE_NAMES, LogFile, LogRows, feature_specs
from trainer.data.dictionary import Dictionary, ValueCounter, dictionary_sha256
from trainer.data.manifest import DataManifest, Part
from trainer.data.prepared_folder import InputFile, PartWriter, PreparedFolder, PreparedRows

NAME_PATTERN = re.compile(r"[A-Za-z0-9_]+")
PASSES = ("count", "vocabulary", "write")

Pass = Literal["count", "vocabulary", "write"]


@dataclass(frozen=True, kw_only=True)
class PreparationProgress:
    """How far one of the three passes is."""

    stage: Pass
    num_rows: int
    num_bytes_read: int
    num_bytes_total: int
    seconds: float


OnProgress = Callable[[PreparationProgress], None]


def part_name(path: str) -> str:
    """The name of the part made from one file: day_0 for any/where/day_0.tsv.gz.

    Raises:
        DataError: the name holds other characters than a part's name may.
    """
    base = path.rstrip("/").rsplit("/", 1)[-1]
    stem = base.removesuffix(".gz")
    stem = stem.rsplit(".", 1)[0] if "." in stem else stem
    if not NAME_PATTERN.fullmatch(stem):
        raise DataError(
            f"{path}: {stem!r} cannot name a part (A-Z, a-z, 0-9 and _ only); rename the file or give a split"
        )
    return stem


@dataclass(frozen=True, kw_only=True)
class PreparationSettings:
    """What is prepared and how; checked when made."""

    inputs: tuple[str, ...]
    vocabulary_from: tuple[str, ...] | None = None
    min_count: int = 2
    split: Mapping[str, float] | None = None
    part_names: tuple[str, ...] = field(init=False)
    vocabulary: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError("inputs: none given; name at least one log file")
        if self.min_count < 1:
            raise DataError(f"min_count: {self.min_count} must be at least 1")
        names = self._checked_split() if self.split is not None else tuple(part_name(path) for path in self.inputs)
        doubled = sorted({path for path in self.inputs if self.inputs.count(path) > 1})
        if doubled:
            raise DataError(f"inputs: {doubled[0]} is named twice; a row must not be in two places")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise DataError(f"inputs: several files would make a part {doubled[0]!r}; rename one of them")
        vocabulary = self.vocabulary_from
        if vocabulary is None:
            vocabulary = names[:-1] or names
        unknown = [name for name in vocabulary if name not in names]
        if unknown or not vocabulary:
            shown = repr(unknown[0]) if unknown else "nothing"
            raise DataError(f"vocabulary_from: {shown} is not a part; choose from {', '.join(names)}")
        object.__setattr__(self, "part_names", names)
        object.__setattr__(self, "vocabulary", tuple(name for name in names if name in vocabulary))

    def _checked_split(self) -> tuple[str, ...]:
        split = self.split or {}
        for name, share in split.items():
            if not NAME_PATTERN.fullmatch(name):
                raise DataError(f"split: {name!r} cannot name a part; use A-Z, a-z, 0-9 and _ only")
            if not 0 < share <= 1:
                raise DataError(f"split: {name}={share} must be above 0 and at most 1")
        if abs(sum(split.values()) - 1) > 1e-9:
            raise DataError(f"split: the shares sum to {sum(split.values()):.6g}, not 1; correct them")
        return tuple(split)

    @property
    def provenance(self) -> dict[str, Any]:
        """The settings as a manifest keeps them."""
        return {
            "format": "criteo_tsv",
            "split": dict(self.split) if self.split is not None else None,
            "vocabulary_from": list(self.vocabulary),
            "min_count": self.min_count,
        }

    def ranges(self, num_rows: Sequence[int]) -> dict[str, range]:
        """Each part's rows, counted over all inputs; `num_rows` has the rows of each input.

        Raises:
            DataError: a part of the split would be empty.
        """
        if self.split is None:
            stops = list(itertools.accumulate(num_rows))
        else:
            # Fractions of the decimal text: 0.29 of 100 rows is 29, which floats make 28.
            shares = itertools.accumulate(Fraction(str(share)) for share in self.split.values())
            stops = [int(share * sum(num_rows)) for share in shares]
            stops[-1] = sum(num_rows)
        ranges = {
            name: range(start, stop) for name, start, stop in zip(self.part_names, [0, *stops], stops, strict=False)
        }
        for name, rows in ranges.items():
            if not rows:
                raise DataError(f"split: part {name!r} would have no row of {sum(num_rows):,}; give it a larger share")
        return ranges


@dataclass(kw_only=True)
class _Pass:
    """One reading of some inputs, reported as it goes."""

    stage: Pass
    inputs: Sequence[InputFile]
    on_progress: OnProgress | None
    block_bytes: int
    num_rows: int = 0
    num_bytes_done: int = 0
    started: float = field(default_factory=time.monotonic)

    def files(self) -> Iterator[tuple[InputFile, LogFile]]:
        for entry in self.inputs:
            log = LogFile(entry.path, block_bytes=self.block_bytes)
            yield entry, log
            self.num_bytes_done += log.num_bytes_read

    def report(self, log: LogFile, num_rows: int) -> None:
        self.num_rows += num_rows
        if self.on_progress is not None:
            self.on_progress(
                PreparationProgress(
                    stage=self.stage,
                    num_rows=self.num_rows,
                    num_bytes_read=self.num_bytes_done + log.num_bytes_read,
                    num_bytes_total=sum(entry.num_bytes for entry in self.inputs),
                    seconds=time.monotonic() - self.started,
                )
            )


def already_prepared(
    *,
    inputs: Sequence[str],
    output: str,
    vocabulary_from: Sequence[str] | None = None,
    min_count: int = 2,
    split: Mapping[str, float] | None = None,
) -> DataManifest | None:
    """The manifest of `output` if it is finished and made from these inputs with these settings, else None.

    Raises:
        DataError: a setting is wrong, an input is missing, or the folder holds something else.
    """
    settings = _settings(inputs, vocabulary_from, min_count, split)
    entries = [InputFile.look(path) for path in settings.inputs]
    return PreparedFolder(output).same_as(settings.provenance, entries)


def prepare(
    *,
    inputs: Sequence[str],
    output: str,
    vocabulary_from: Sequence[str] | None = None,
    min_count: int = 2,
    split: Mapping[str, float] | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> DataManifest:
    """Prepares Criteo click logs.

    Args:
        inputs: The log files, plain or gzip, in time order.
        output: The folder to write; new, empty, unfinished or, with `overwrite`, prepared otherwise.
        vocabulary_from: The parts whose values get ids; not given: all parts but the last, or the only one.
        min_count: Values seen less often in the vocabulary parts are rare (id 1).
        split: Names and shares of the parts, cut in time order over all inputs; not given: each file is a part.
        overwrite: Whether data prepared with other inputs or settings are replaced.
        on_progress: Called after every block.
        block_bytes: Size of the blocks in which unpacked lines are read.

    Returns:
        The manifest; the one that is there already where inputs and settings are the same.

    Raises:
        DataError: wrong settings, a bad input line, or an output folder that must not be touched.
        ChorusError: the output cannot be written.
    """
    settings = _settings(inputs, vocabulary_from, min_count, split)
    entries = [InputFile.look(path) for path in settings.inputs]
    folder = PreparedFolder(output)
    if not overwrite:
        finished = folder.same_as(settings.provenance, entries)
        if finished is not None:
            return finished

    def start(stage: Pass, chosen: Sequence[InputFile]) -> _Pass:
        return _Pass(stage=stage, inputs=chosen, on_progress=on_progress, block_bytes=block_bytes)

    try:
        folder.claim(overwrite=overwrite)
        entries = _count(start("count", entries))
        ranges = settings.ranges([entry.num_rows for entry in entries])
        wanted = [ranges[name] for name in settings.vocabulary]
        dictionaries = _build_dictionaries(start("vocabulary", entries), wanted, settings.min_count)
        folder.write_dictionaries(dictionaries)
        parts = _write_parts(start("write", entries), ranges, dictionaries, folder)
        manifest = DataManifest(
            features=feature_specs([dictionary.rows for dictionary in dictionaries.values()]),
            parts=parts,
            dictionary_sha256=dictionary_sha256(dictionaries),
            provenance={**settings.provenance, "inputs": [entry.as_dict() for entry in entries]},
        )
        folder.finish(manifest)
    except OSError as error:
        raise ChorusError(
            f"{output}: cannot be written ({error.strerror or error}); nothing finished is there:"
            " make room or choose another folder, and run again"
        ) from error
    return manifest


def _settings(
    inputs: Sequence[str],
    vocabulary_from: Sequence[str] | None,
    min_count: int,
    split: Mapping[str, float] | None,
) -> PreparationSettings:
    return PreparationSettings(
        inputs=tuple(inputs),
        vocabulary_from=None if vocabulary_from is None else tuple(vocabulary_from),
        min_count=min_count,
        split=split,
    )


def _count(reading: _Pass) -> list[InputFile]:
    """The inputs with their rows and hashes; most bad lines are found here already, cheaply."""
    counted = []
    for entry, log in reading.files():
        num_rows = 0
        for block in log.blocks():
            block.check()
            num_rows += block.num_lines
            reading.report(log, block.num_lines)
        counted.append(entry.counted(num_rows=num_rows, sha256=log.sha256))
    return counted


def _overlap(rows: range, start: int, stop: int) -> slice:
    """Which of the rows start..stop lie in `rows`, as a slice counted from `start`."""
    return slice(max(rows.start - start, 0), max(min(rows.stop, stop) - start, 0))


def _build_dictionaries(reading: _Pass, wanted: Sequence[range], min_count: int) -> dict[str, Dictionary]:
    """Counts the values of the wanted rows; inputs that hold none of them are not read."""
    stops = itertools.accumulate(entry.num_rows for entry in reading.inputs)
    starts = {entry: stop - entry.num_rows for entry, stop in zip(reading.inputs, stops, strict=True)}
    reading.inputs = [
        entry
        for entry, start in starts.items()
        if any(rows.start < start + entry.num_rows and start < rows.stop for rows in wanted)
    ]
    counters = [ValueCounter() for _ in range(NUM_SPARSE)]
    for entry, log in reading.files():
        start = starts[entry]
        for block in log.blocks():
            stop = start + block.num_lines
            picks = [pick for rows in wanted if (pick := _overlap(rows, start, stop)).start < pick.stop]
            if picks:
                parsed = block.parse()
                for pick in picks:
                    _count_values(counters, parsed, pick)
            start = stop
            reading.report(log, block.num_lines)
    return {name: counter.dictionary(min_count=min_count) for name, counter in zip(SPARSE_NAMES, counters, strict=True)}


def _count_values(counters: Sequence[ValueCounter], parsed: LogRows, pick: slice) -> None:
    for column, counter in enumerate(counters):
        values = parsed.values[pick, column]
        counter.add(values[~parsed.value_missing[pick, column]])


def _write_parts(
    reading: _Pass,
    ranges: Mapping[str, range],
    dictionaries: Mapping[str, Dictionary],
    folder: PreparedFolder,
) -> tuple[Part, ...]:
    """Writes every row into its part's three files."""
    blocks = _prepared_blocks(reading, dictionaries)
    rows = next(blocks)
    parts = []
    for name, wanted in ranges.items():
        with PartWriter(folder.root, name, num_rows=len(wanted)) as writer:
            while writer.num_rows_left:
                rows = rows if len(rows) else next(blocks)
                taken, rows = rows.cut(writer.num_rows_left)
                writer.append(taken)
        parts.append(writer.part())
    return tuple(parts)


def _prepared_blocks(reading: _Pass, dictionaries: Mapping[str, Dictionary]) -> Iterator[PreparedRows]:
    """The rows of all inputs as they are written."""
    for entry, log in reading.files():
        num_rows = 0
        for block in log.blocks():
            parsed = block.parse()
            num_rows += len(parsed)
            if num_rows > entry.num_rows:
                break
            ids = np.empty(parsed.values.shape, np.int32)
            for column, dictionary in enumerate(dictionaries.values()):
                ids[:, column] = dictionary.ids_of(parsed.values[:, column], parsed.value_missing[:, column])
            reading.report(log, len(parsed))
            yield PreparedRows(dense=parsed.dense, ids=ids, labels=parsed.labels)
        if num_rows != entry.num_rows:
            raise DataError(f"{entry.path}: its lines changed while they were read; run again when it is whole")
