"""Raw logs that are to be scored, prepared on the fly with the ids of the data that a model was trained on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ChorusError, ConfigError, DataError
from configs.loader import table_schema_of
from configs.schema import RunConfig
from configs.table_schema import TableSchema
from trainer import storage
from trainer.data.manifest import DataManifest
from trainer.data.preparing.criteo_format import CriteoFormat, first_lines_have_label
from trainer.data.preparing.input_files import input_files
from trainer.data.preparing.parsed import InputFormat
from trainer.data.preparing.preparation import already_prepared, prepare
from trainer.data.preparing.preparation_settings import PreparationSettings, VocabularyChoice, saved_manifest
from trainer.data.preparing.prepared_folder import QUARANTINE_NAME, InputFile
from trainer.data.preparing.splits import Split
from trainer.data.preparing.stages import OnProgress, PreparationProgress
from trainer.data.preparing.text_files import TextFile
from trainer.data.tables.table_csv import CsvTable
from trainer.data.tables.table_parquet import ParquetTable
from trainer.long_work import long_from_main
from trainer.runtime import Runtime
from trainer.worker_processes import num_cores

UNFINISHED_FOLDER = "unfinished"  # in the folder of the predictions
PREPARED_FOLDER = "prepared"  # in that one

_INPUT = "score.input"
_QUIET_SECONDS = 2.0
_SAY_SECONDS = 10.0
_DOING = f"preparing {_INPUT}"

Beat = Callable[[str], None]


def prepare_scoring_input(config: RunConfig, *, folder: str, runtime: Runtime) -> str:
    """Prepares what score.input names, a part a file. A collective; rank 0 works, the others wait.

    Bad lines are in FOLDER/quarantine.jsonl afterwards. A job that was stopped goes on from what is done.

    Args:
        config: Its score.input, score.dictionary, score.keep and data.root are looked at.
        folder: Of the predictions; all but the quarantine goes into FOLDER/unfinished/prepared.
        runtime: The ranks.

    Returns:
        The prepared folder.

    Raises:
        ConfigError: no dictionary, or no prepared data can lie in the folder.
        DataError: an input or the dictionary is missing, or of another kind; too many bad lines.
        ChorusError: the disk has no room.
    """
    work = _Work(
        patterns=config.score.input,
        key="score.dictionary" if config.score.dictionary else "data.root",
        dictionary=config.score.dictionary or config.data.root,
        keep=config.score.keep,
        folder=folder,
        say=runtime.say,
    )
    with runtime.patience(_DOING):
        runtime.say(long_from_main(work.run, doing=f"{_INPUT} to be prepared", runtime=runtime))
    return work.output


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What rank 0 does.

    Args:
        patterns: Of the inputs.
        key: Which key names the dictionary.
        dictionary: The folder with the ids.
        keep: Columns that pass through into the predictions.
        folder: Of the predictions.
        say: Tells the user.
    """

    patterns: Sequence[str]
    key: str
    dictionary: str
    keep: Sequence[str]
    folder: str
    say: Callable[[str], None]

    @property
    def output(self) -> str:
        """The prepared folder."""
        return storage.join(self.folder, UNFINISHED_FOLDER, PREPARED_FOLDER)

    def run(self, beat: Beat) -> str:
        """Prepares, keeps the bad lines, and gives a sentence of what came out."""
        settings = self._settings()
        try:
            manifest = already_prepared(settings)
            if manifest is None:
                self._refuse_full_disk(settings)
                manifest = prepare(settings, on_progress=_progress(self.say, beat))
        except DataError as error:
            raise DataError(f"{_INPUT}: {self._in_words_of_scoring(str(error))}") from error
        return self._account(manifest)

    def _settings(self) -> PreparationSettings:
        if not self.dictionary:
            raise ConfigError(
                "score.dictionary: empty, and so is data.root, but score.input needs ids; name the prepared folder that"
                " the checkpoint was trained on"
            )
        if storage.is_remote(self.folder):
            raise ConfigError(
                f"--output: score.input is prepared in {self.folder} first, and rows are written in place; give a local"
                " or mounted folder, or prepare the logs with tools/prepare_criteo.py and name theirs in data.root"
            )
        saved = saved_manifest(self.dictionary, key=self.key)
        inputs = input_files(self.patterns, key=_INPUT)
        for path in inputs:
            try:
                InputFile.look(path)
            except DataError as error:
                raise DataError(f"{_INPUT}: {error}; correct the path") from error
        storage.make_folder(storage.join(self.folder, UNFINISHED_FOLDER))
        try:
            return PreparationSettings(
                inputs=tuple(inputs),
                output=self.output,
                input_format=_format(saved.provenance["input"], inputs, root=self.dictionary, keep=self.keep),
                split=Split.by_file(inputs),
                vocabulary=VocabularyChoice(kind="saved", saved=self.dictionary),
                bag_sizes=tuple(saved.provenance.get("bag_sizes", ())),
                num_workers=num_cores(),
            )
        except DataError as error:
            sentence = str(error).removeprefix(f"{_INPUT}: ").removesuffix(" or give a split")
            raise DataError(sentence if sentence.startswith("score.") else f"{_INPUT}: {sentence}") from error

    def _refuse_full_disk(self, settings: PreparationSettings) -> None:
        """Before anything is written; a preparation that goes on was let in already."""
        if storage.exists(settings.output):
            return
        layout = settings.input_format.layout
        rows = sum(settings.input_format.about_num_rows(path) for path in settings.inputs)
        needed, free = rows * layout.row_bytes, storage.free_bytes(self.folder)
        if needed > free:
            raise ChorusError(
                f"{self.folder}: {_INPUT} holds about {rows:,} rows, which take about {needed:,} bytes there while they"
                f" are scored, and {free:,} are free; make room, give another --output, or score fewer files at a time"
            )

    def _in_words_of_scoring(self, sentence: str) -> str:
        """The sentences of a preparation name flags that scoring has not."""
        if "--overwrite" in sentence:
            return f"{sentence.rpartition(';')[0]}; give the same as before to go on, or name another --output"
        if " --" not in sentence:
            return sentence
        return (
            f"{sentence} (flags are those of tools/prepare_criteo.py and tools/prepare_table.py: prepare the files with"
            f" --dictionary {self.dictionary} and these, and name that folder in data.root; to begin anew here, delete"
            f" {self.output})"
        )

    def _account(self, manifest: DataManifest) -> str:
        counts = {
            key: sum(entry[key] for entry in manifest.provenance["inputs"])
            for key in ("num_lines", "num_rows", "num_quarantined")
        }
        kept = storage.join(self.folder, QUARANTINE_NAME)
        bad = f"{counts['num_quarantined']:,} bad ones"
        if counts["num_quarantined"]:
            storage.copy_file(storage.join(self.output, QUARANTINE_NAME), kept)
            bad += f" in {kept}"
        elif storage.is_file(kept):  # of an input that was corrected since
            storage.remove_file(kept)
        labels = "without labels" if manifest.parts[0].label_sum is None else "with labels"
        return (
            f"{_INPUT}: {len(manifest.parts)} files {labels} prepared with the ids of {self.dictionary}:"
            f" {counts['num_lines']:,} lines read = {counts['num_rows']:,} rows + {bad}"
        )


def _progress(say: Callable[[str], None], beat: Beat) -> OnProgress:
    """Says now and then how far it is, and keeps the other ranks waiting."""
    next_words = time.monotonic() + _QUIET_SECONDS

    def hear(now: PreparationProgress) -> None:
        nonlocal next_words
        beat(_DOING)
        moment = time.monotonic()
        if moment >= next_words:
            next_words = moment + _SAY_SECONDS
            say(f"{_DOING}: {now.sentence()}")

    return hear


def _format(kept: Mapping[str, Any], inputs: Sequence[str], *, root: str, keep: Sequence[str]) -> InputFormat:
    """How the files are read: as those of the saved folder were, with labels or without.

    Raises:
        DataError: some have labels and others have none, they are of another format, or a column to keep is missing.
    """
    if kept["format"] == "criteo_tsv":
        return CriteoFormat(
            tokens=kept["tokens"], numerics=kept["numerics"], has_labels=_logs_have_labels(inputs, root=root)
        )
    schema = dataclasses.replace(table_schema_of(kept["schema"], source=f"the schema of {root}"), split=None)
    table = ParquetTable if kept["format"] == "table_parquet" else CsvTable
    there = {path: table(schema).columns_there(path) for path in inputs}
    schema = _without_dispensable(schema, there, keep=keep)
    label = schema.label
    labelled = {path: label is not None and label.column in columns for path, columns in there.items()}
    return table(schema, has_labels=_all_alike(labelled))


def _without_dispensable(
    schema: TableSchema, there: Mapping[str, Sequence[str]], *, keep: Sequence[str]
) -> TableSchema:
    """Without the weight and the kept columns that a file lacks, where score.keep does not name them."""
    passing = {name: column.column or name for name, column in schema.keep.items()}
    if schema.weight is not None:
        passing["weight"] = schema.weight.column  # scoring takes no other notice of it
    lacking = {
        name: path for name, column in passing.items() for path, columns in there.items() if column not in columns
    }
    for name in keep:
        if name in lacking:
            raise DataError(
                f"score.keep: {name!r}: {lacking[name]} has no column {passing[name]!r}; take it out of score.keep, or"
                " score files that have it"
            )
    return dataclasses.replace(
        schema,
        weight=None if "weight" in lacking else schema.weight,
        keep={name: column for name, column in schema.keep.items() if name not in lacking},
    )


def _logs_have_labels(inputs: Sequence[str], *, root: str) -> bool:
    labelled = {path: first_lines_have_label(path) for path in inputs}
    for path in (path for path, found in labelled.items() if found is None):
        beginning = TextFile(path).beginning()
        if not beginning.data and beginning.fault is None:
            raise DataError(f"{_INPUT}: {path} is empty; fetch it again, or leave it out")
        raise DataError(
            f"{_INPUT}: {path} does not begin with lines of 40 fields, or 39 without a label, and {root} was made"
            " from such logs; name logs of that kind"
        )
    return _all_alike({path: bool(found) for path, found in labelled.items()})


def _all_alike(labelled: Mapping[str, bool]) -> bool:
    some = {found: path for path, found in labelled.items()}
    if len(some) > 1:
        raise DataError(f"{_INPUT}: {some[True]} has labels and {some[False]} has none; score them in two jobs")
    return next(iter(some))
