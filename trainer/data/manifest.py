"""The manifest of a prepared folder: its features, its parts, and the files they lie in.

A prepared folder is finished exactly when its manifest.json is there. Per part it holds the npy
triple that TorchRec's and MLPerf's tools use: PART_dense.npy float32 [N, 13], PART_sparse.npy
int32 [N, 26], PART_labels.npy int32 [N, 1]. Ids: 0 missing, 1 rare or unseen, values from 2.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.errors import DataError
from trainer import storage

FORMAT = "chorus-data"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MISSING_ID = 0
RARE_ID = 1
FIRST_VALUE_ID = 2
LABEL_FILE = "labels"


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One feature: the file (by role: dense, sparse, ...) and column it lies in."""

    name: str
    kind: Literal["dense", "id", "bag", "weight"]
    file: str
    column: int
    rows: int | None = None  # of the feature's table: ids are below it; None for dense
    transform: str | None = None


@dataclass(frozen=True, kw_only=True)
class PartFile:
    """One file of a part, with what proves that it is whole."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """A named run of rows in time order, as a day."""

    name: str
    num_rows: int
    label_sum: int
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
        """Features of kind id, in order."""
        return tuple(feature for feature in self.features if feature.kind == "id")

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
