"""VocabularyMaking: the stage of a preparation that settles which value has which id."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import DataManifest
from trainer.data.preparing.dictionary import Dictionary, DictionaryJob, SavedDictionaryJob, combined_sha256
from trainer.data.preparing.lookup import LookupFile
from trainer.data.preparing.pieces import PieceRecord
from trainer.data.preparing.preparation_settings import PreparationSettings
from trainer.data.preparing.prepared_folder import DICTIONARY_FOLDER
from trainer.data.preparing.stages import Stages
from trainer.data.preparing.vocabulary import Vocabulary, hash_sha256


class VocabularyMaking:
    """Makes the vocabulary: known beforehand, as for hashing, or from counts.

    Args:
        settings: The preparation's.
        scratch: Folder of lookup tables and records.
        stages: What runs the jobs.
    """

    def __init__(self, settings: PreparationSettings, *, scratch: str, stages: Stages) -> None:
        self._settings = settings
        self._choice = settings.vocabulary
        self._layout = settings.input_format.layout
        self._features = (*self._layout.ids, *self._layout.bags)
        self._scratch = scratch
        self._stages = stages
        self._leads = settings.shard[0] == 0
        self._by_first_row = settings.vocabulary.rule.order == "first_row"

    def known(self) -> Vocabulary | None:
        """The vocabulary, unless it comes from the rows themselves.

        Raises:
            DataError: a saved dictionary cannot be read.
        """
        if self._choice.kind == "dictionary":
            return None
        if self._choice.kind == "hash":
            return self._hashed((self._choice.hash_rows,) * len(self._features))
        saved = DataManifest.read(self._choice.saved)
        rows = {feature.name: feature.rows or 0 for feature in saved.id_features}
        if saved.provenance["vocabulary"]["kind"] == "hash":
            return self._hashed(tuple(rows[name] for name in self._features))
        jobs = []
        for name in self._missing():
            saved_path = self._parquet(self._choice.saved, name)
            if not storage.is_file(saved_path):
                raise DataError(f"{saved_path}: this dictionary is not there; prepare its folder again")
            if self._leads:
                storage.copy_file(saved_path, self._parquet(self._settings.output, name))
            jobs.append(
                SavedDictionaryJob(
                    name=name,
                    saved=saved_path,
                    rows=rows[name],
                    value_bits=self._layout.value_bits,
                    folder=self._scratch,
                    memory_bytes=self._settings.merge_bytes,
                )
            )
        self._run(jobs)
        vocabulary = _vocabulary_of(self._stages.wait(self._made, "dictionary"))
        if self.sha256() != saved.dictionary_sha256:
            raise DataError(
                f"dictionary: the files in {self._choice.saved}/{DICTIONARY_FOLDER} are not those of its manifest;"
                " fetch them again, or prepare its data again"
            )
        return vocabulary

    def from_counts(self, records: Sequence[PieceRecord]) -> Vocabulary:
        """The vocabulary of the counted values of all pieces, in order."""
        dtype = "<u4" if self._layout.value_bits == 32 else "<u8"
        jobs = []
        for name in self._missing():
            feature = self._features.index(name)
            jobs.append(
                DictionaryJob(
                    name=name,
                    runs=tuple(
                        record.run(self._scratch, feature, dtype=dtype, ordinal=ordinal if self._by_first_row else None)
                        for ordinal, record in enumerate(records)
                        if record.runs is not None
                    ),
                    rule=self._choice.rule,
                    value_bits=self._layout.value_bits,
                    folder=self._scratch,
                    output=self._parquet(self._settings.output, name),
                    memory_bytes=self._settings.merge_bytes,
                    texts=tuple(
                        record.name.path(self._scratch, f"{name}.texts")
                        for record in records
                        if name in record.text_features
                    ),
                )
            )
        self._run(jobs)
        made = _vocabulary_of(self._stages.wait(self._made, "dictionary"))
        return dataclasses.replace(made, modulo=self._by_first_row)

    def sha256(self) -> str:
        """Hash of the vocabulary: equal exactly when every value has the same id."""
        if self._choice.kind == "hash":
            return hash_sha256(dict.fromkeys(self._features, self._choice.hash_rows))
        made = self._made()
        if self._choice.kind == "saved" and not made:  # it was made by hashing
            return DataManifest.read(self._choice.saved).dictionary_sha256
        return combined_sha256([dictionary.sha256 for dictionary in made or ()])

    def _hashed(self, rows: tuple[int, ...]) -> Vocabulary:
        return Vocabulary(features=self._features, rows=rows, lookups=None)

    def _run(self, jobs: Sequence[DictionaryJob | SavedDictionaryJob]) -> None:
        if self._leads:
            for found in self._stages.run("dictionary", jobs, total=len(jobs), unit="jobs"):
                storage.write_json(self._record(found.name), dataclasses.asdict(found), durable=False)

    def _missing(self) -> list[str]:
        storage.make_folder(storage.join(self._settings.output, DICTIONARY_FOLDER))
        return [name for name in self._features if self._read(name) is None]

    def _made(self) -> list[Dictionary] | None:
        """All dictionaries in order, once they are there."""
        found = [self._read(name) for name in self._features]
        return None if None in found else [dictionary for dictionary in found if dictionary is not None]

    def _read(self, name: str) -> Dictionary | None:
        if not storage.is_file(self._record(name)) or not storage.is_file(self._parquet(self._settings.output, name)):
            return None
        body = storage.read_json(self._record(name))
        # The folder may have been moved since, or be seen under another name from another host.
        path = storage.join(self._scratch, storage.base_name(body["lookup"]["path"]))
        if not storage.is_file(path):
            return None
        return Dictionary(**{**body, "lookup": LookupFile(**{**body["lookup"], "path": path})})

    def _record(self, name: str) -> str:
        return storage.join(self._scratch, f"dictionary_{name}.json")

    @staticmethod
    def _parquet(root: str, name: str) -> str:
        return storage.join(root, DICTIONARY_FOLDER, f"{name}.parquet")


def _vocabulary_of(dictionaries: Iterable[Dictionary]) -> Vocabulary:
    found = list(dictionaries)
    return Vocabulary(
        features=tuple(dictionary.name for dictionary in found),
        rows=tuple(dictionary.rows for dictionary in found),
        lookups=tuple(dictionary.lookup for dictionary in found),
    )
