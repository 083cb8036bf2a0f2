"""The manifest of a prepared folder: its features, its parts, and the files they lie in.

A prepared folder is finished exactly when its manifest.json is there. Each part has files by role, all of N rows:

    dense         float32 [N, D]    kind dense: column
    sparse        int32 [N, F]      kind id: column; with `bag_size` kind bag: the first id, the others follow from it
    numeric_ids   int32 [N, I]      kind id: numerics discretised into ids
    NAME_values   int32 [T]         kind bag, of any length: the ids of all rows one after the other (file = NAME)
    NAME_offsets  int64 [N + 1]       and where each row's begin
    weights       float32 [N, 1]    kind weight: what a row counts for in the loss
    labels        int32 [N, 1]      0 or 1; not there where the log has no labels
    NAME_kept     int64 [N, 1]      kind kept: a column that no member reads, or texts as UTF-8 of up to k bytes (Sk)

dense, sparse and labels are the npy triple that TorchRec's and MLPerf's tools use. A part's file may also be a member
of an uncompressed npz archive, as MLPerf's materialised bags are: int32 [N, bag size]. Ids: 0 missing, 1 rare or
unseen, values from 2.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.errors import DataError
from trainer import storage

FORMAT = "chorus-data"
FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
MISSING_ID = 0
RARE_ID = 1
FIRST_VALUE_ID = 2
DENSE_FILE = "dense"
SPARSE_FILE = "sparse"
NUMERIC_IDS_FILE = "numeric_ids"
NUMERIC_ID_SUFFIX = (
    "_id"  # NAME_id of that file is the discretised form of the dense feature NAME, where both are there
)
WEIGHT_FILE = "weights"
LABEL_FILE = "labels"


def kept_file(name: str) -> str:
    """The file of a kept column."""
    return f"{name}_kept"


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One feature: the file (by role: dense, sparse, ...) and column it lies in."""

    name: str
    kind: Literal["dense", "id", "bag", "weight", "kept"]
    file: str
    column: int
    rows: int | None = None  # of the feature's table: ids are below it; None for others
    transform: str | None = None
    bag_size: int | None = None  # bags that are a function of their first id, which is all that is stored
    dtype: str | None = None  # of kept columns: int64, or S36 for texts of at most 36 bytes

    @property
    def has_offsets(self) -> bool:
        """Whether the feature is a bag of any length, in two files."""
        return self.kind == "bag" and self.bag_size is None


@dataclass(frozen=True, kw_only=True)
class PartFile:
    """One file of a part, with what proves that it is whole."""

    path: str
    num_bytes: int
    sha256: str
    member: str | None = None  # of an npz archive
    first_row: int = 0  # where the part's rows begin in the file
    file_rows: int | None = None  # rows of the file, where not all are the part's


@dataclass(frozen=True, kw_only=True)
class Part:
    """A named run of rows in time order, as a day."""

    name: str
    num_rows: int
    label_sum: int | None  # None: without labels
    files: dict[str, PartFile]  # role -> file


@dataclass(frozen=True, kw_only=True)
class DataManifest:
    """What a prepared folder holds."""

    features: tuple[FeatureSpec, ...]
    parts: tuple[Part, ...]
    dictionary_sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)  # command, vocabulary rule, inputs

    @property
    def dense_features(self) -> tuple[FeatureSpec, ...]:
        """Features of kind dense, in order."""
        return tuple(feature for feature in self.features if feature.kind == "dense")

    @property
    def id_features(self) -> tuple[FeatureSpec, ...]:
        """Features that look up a table, of kind id or bag, in order."""
        return tuple(feature for feature in self.features if feature.kind in ("id", "bag"))

    @property
    def weight_feature(self) -> FeatureSpec | None:
        """The feature of kind weight, if there is one."""
        return next((feature for feature in self.features if feature.kind == "weight"), None)

    @property
    def kept_features(self) -> tuple[FeatureSpec, ...]:
        """Columns that pass through, in order."""
        return tuple(feature for feature in self.features if feature.kind == "kept")

    def part(self, name: str) -> Part:
        """The part of that name.

        Raises:
            DataError: there is none; names those there are.
        """
        for part in self.parts:
            if part.name == name:
                return part
        there = ", ".join(part.name for part in self.parts)
        raise DataError(
            f"no part {name!r} in the prepared folder, which has {there}; correct data.train, data.valid or score.parts"
        )

    def write(self, root: str) -> None:
        """Writes manifest.json: call it last, it says that all else is there."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        storage.write_json(storage.join(root, MANIFEST_NAME), body)

    @staticmethod
    def read(root: str) -> DataManifest:
        """Reads the manifest of a prepared folder.

        Raises:
            DataError: no folder, no manifest (preparation did not finish), not ours, or of
                another format version.
        """
        path = storage.join(root, MANIFEST_NAME)
        if not storage.exists(root):
            raise DataError(f"data.root: no folder {root!r}; prepare it with tools/prepare_criteo.py")
        if not storage.is_file(path):
            raise DataError(
                f"data.root: {root!r} has no {MANIFEST_NAME}, so its preparation did not finish;"
                " run tools/prepare_criteo.py again"
            )
        try:
            body = storage.read_json(path)
            if body.pop("format") != FORMAT:
                raise ValueError("format")
            version = body.pop("format_version")
            if version != FORMAT_VERSION:
                raise DataError(
                    f"{path}: format version {version}, this program reads {FORMAT_VERSION}; prepare it again"
                )
            return DataManifest(
                features=tuple(FeatureSpec(**feature) for feature in body["features"]),
                parts=tuple(
                    Part(**{**part, "files": {role: PartFile(**f) for role, f in part["files"].items()}})
                    for part in body["parts"]
                ),
                dictionary_sha256=body["dictionary_sha256"],
                provenance=body["provenance"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a manifest of prepared data ({error!r}); prepare it again") from error
