"""The manifest of a prediction folder: its files, and what proves that every row is there once.

A folder holds finished predictions exactly when its manifest.json is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from configs.errors import DataError
from trainer import storage
from trainer.predictions.manifest_checks import check_manifest

FORMAT = "chorus-predictions"
FORMAT_VERSION = 3
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """One written file: a range of one part's rows, in order."""

    path: str  # in the folder
    part: str
    first_row: int
    num_rows: int
    label_sum: int | None  # None: without labels
    row_hash: str  # of its row ids, as trainer.predictions.row_hash has it, 16 hex digits
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ScoredCheckpoint:
    """A checkpoint whose members were scored."""

    label: str  # "" where there was one
    folder: str
    step: int


@dataclass(frozen=True, kw_only=True)
class PredictionManifest:
    """What a prediction folder holds."""

    members: tuple[str, ...]  # as in the columns' names, in order
    parts: Mapping[str, int]  # part -> rows, in order
    files: tuple[PredictionFile, ...]  # part by part, row by row
    kept: tuple[str, ...] = ()  # columns that passed through
    merge: Mapping[str, Any]  # the merge rule, as in a merge.toml
    checkpoints: tuple[ScoredCheckpoint, ...]
    data: Mapping[str, Any]  # root, dictionary (its hash)
    settings: Mapping[str, Any] = field(default_factory=dict)  # what else decided the bytes: dtype, tables, ranges ...
    metrics: Mapping[str, Any] = field(default_factory=dict)  # member or merged -> figures; empty: rows without labels
    metrics_by_part: Mapping[str, Any] = field(default_factory=dict)  # part -> the same of its rows
    calibration_curves: Mapping[str, Any] = field(default_factory=dict)  # member or merged -> points, by prediction

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return sum(self.parts.values())

    @property
    def has_labels(self) -> bool:
        """Whether every row has a label."""
        return all(file.label_sum is not None for file in self.files)

    def write(self, folder: str) -> None:
        """Writes manifest.json: call it last, it says that all else is there."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, "num_rows": self.num_rows, **asdict(self)}
        storage.write_json(storage.join(folder, MANIFEST_NAME), body)

    @staticmethod
    def read(folder: str) -> PredictionManifest:
        """The manifest of a prediction folder.

        Raises:
            DataError: the folder is not there, not finished, not ours, or its files are not all rows once; names the
                key.
        """
        path = storage.join(folder, MANIFEST_NAME)
        if not storage.is_file(path):
            raise DataError(
                f"{folder!r} has no {MANIFEST_NAME}, so it holds no finished predictions; run trainer/score.py"
            )
        try:
            body = storage.read_json(path)
            if body.pop("format") != FORMAT or body.pop("format_version") != FORMAT_VERSION:
                raise ValueError(f"another format, or format version; this program reads {FORMAT} {FORMAT_VERSION}")
            num_rows = body.pop("num_rows")
            _refuse_other_keys("", body, PredictionManifest)
            check_manifest(body)
            for key, of in (("files", PredictionFile), ("checkpoints", ScoredCheckpoint)):
                for place, one in enumerate(body[key]):
                    _refuse_other_keys(f"{key}[{place}].", one, of)
            manifest = PredictionManifest(
                **body
                | {
                    "members": tuple(body["members"]),
                    "kept": tuple(body["kept"]),
                    "files": tuple(PredictionFile(**file) for file in body["files"]),
                    "checkpoints": tuple(ScoredCheckpoint(**one) for one in body["checkpoints"]),
                }
            )
            if manifest.num_rows != num_rows:
                raise ValueError(f"num_rows: {num_rows!r}, its parts have {manifest.num_rows}")
            return manifest
        except KeyError as error:
            raise _no_manifest(path, f"{error.args[0]}: missing") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise _no_manifest(path, str(error)) from error


def _refuse_other_keys(before: str, body: Mapping[str, Any], of: type) -> None:
    keys = [one.name for one in fields(of)]
    odd = [key for key in (*keys, *body) if (key in keys) != (key in body)]
    if odd:
        raise ValueError(f"{before}{odd[0]}: {'missing' if odd[0] in keys else 'no such key'}")


def _no_manifest(path: str, what: str) -> DataError:
    return DataError(f"{path} is not a manifest of predictions ({what}); run trainer/score.py again")
