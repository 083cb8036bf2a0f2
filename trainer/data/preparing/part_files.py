"""Part files: which files a part has, made at their full length before any row is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import (
    DENSE_FILE,
    LABEL_FILE,
    NUMERIC_IDS_FILE,
    SPARSE_FILE,
    WEIGHT_FILE,
    FeatureSpec,
    kept_file,
)
from trainer.data.preparing.criteo_format import RAW_TRANSFORM
from trainer.data.preparing.parsed import Layout
from trainer.data.preparing.part_writing import ExpandJob, OutputFile, rows_of_cut
from trainer.data.preparing.pieces import PieceRecord, kept_blocks
from trainer.data.preparing.splits import BoundSplit, PieceCut, Split
from trainer.data.preparing.vocabulary import Vocabulary

MLPERF_TRANSFORM = "ln(x - minimum of the file + 2)"


@dataclass(frozen=True, kw_only=True)
class PartFiles:
    """The files of all parts of a folder."""

    root: str
    layout: Layout
    names: tuple[str, ...]
    stored_bags: tuple[str, ...] = ()  # features whose bags are written out

    def _roles(self) -> dict[str, tuple[int, str]]:
        """Role -> (columns, type); 0 columns: one number an entry."""
        layout = self.layout
        roles: dict[str, tuple[int, str]] = {}
        if layout.dense:
            roles[DENSE_FILE] = (len(layout.dense), "<f4")
        if layout.numeric_ids:
            roles[NUMERIC_IDS_FILE] = (len(layout.numeric_ids), "<i4")
        if layout.ids:
            roles[SPARSE_FILE] = (len(layout.ids), "<i4")
        if layout.has_weights:
            roles[WEIGHT_FILE] = (1, "<f4")
        if layout.has_labels:
            roles[LABEL_FILE] = (1, "<i4")
        for name in layout.bags:
            roles |= {f"{name}_values": (0, "<i4"), f"{name}_offsets": (0, "<i8")}
        for kept in layout.kept:
            roles[kept_file(kept.name)] = (1, np.dtype(kept.dtype).str)
        return roles

    def paths(self, part: str) -> dict[str, str]:
        """Role -> file of a part."""
        return {role: self._path(part, role) for role in (*self._roles(), *self.stored_bags)}

    def _refuse_shared_paths(self) -> None:
        owners: dict[str, str] = {}
        for part in self.names:
            for path in self.paths(part).values():
                if path in owners:
                    raise DataError(
                        f"{path}: parts {owners[path]!r} and {part!r} would share this file, as one's name begins with"
                        " the other's; rename an input or a feature"
                    )
                owners[path] = part

    def _path(self, part: str, role: str) -> str:
        return storage.join(self.root, f"{part}_{role}.npy")

    def expand_jobs(self, features: Sequence[FeatureSpec], *, scratch: str) -> list[ExpandJob]:
        """What is left to do to write the bags out; marks in `scratch` say what is done."""
        jobs = [
            ExpandJob(
                sparse=self._path(part, SPARSE_FILE),
                column=self.layout.ids.index(feature.name),
                feature=feature.name,
                bag_size=feature.bag_size or 1,
                table_rows=feature.rows or 1,
                output=self._path(part, feature.name),
                mark=storage.join(scratch, f"expanded_{part}_{feature.name}.json"),
            )
            for part in self.names
            for feature in features
            if feature.name in self.stored_bags
        ]
        return [job for job in jobs if not (storage.is_file(job.mark) and storage.is_file(job.output))]

    def make(
        self, num_rows: Sequence[int], bag_values: Sequence[Sequence[int]], *, mode: Literal["make", "expect", "name"]
    ) -> dict[int, dict[str, OutputFile]]:
        """Makes the files at their full length where they are not there yet; gives them by part and role.

        Args:
            num_rows: Of each part.
            bag_values: Of each part the number of values of each bag feature.
            mode: make: make them; expect: they hold rows already and must be there; name: only say what they are.

        Raises:
            DataError: a file that holds rows is gone or cut, or two parts would share one.
        """
        self._refuse_shared_paths()
        found: dict[int, dict[str, OutputFile]] = {}
        for part, name in enumerate(self.names):
            paths = self.paths(name)
            found[part] = {}
            for role, (width, dtype) in self._roles().items():
                length = num_rows[part] + role.endswith("_offsets")
                if role.endswith("_values"):
                    length = bag_values[part][self.layout.bags.index(role.removesuffix("_values"))]
                header = _header((length, width) if width else (length,), dtype)
                row_bytes = max(width, 1) * np.dtype(dtype).itemsize
                output = OutputFile(path=paths[role], header_bytes=len(header), row_bytes=row_bytes)
                if mode != "name":
                    _make(output, header, length, expected=mode == "expect")
                if mode == "make" and role.endswith("_offsets"):
                    last = bag_values[part][self.layout.bags.index(role.removesuffix("_offsets"))]
                    output.put(np.array([last], np.int64), first_row=num_rows[part])
                found[part][role] = output
        return found


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _make(output: OutputFile, header: bytes, length: int, *, expected: bool) -> None:
    size = output.header_bytes + length * output.row_bytes
    if storage.is_file(output.path) and storage.num_bytes(output.path) == size:
        return
    if expected:
        raise DataError(
            f"{output.path}: rows were written to it, and it is gone or of another size; give --overwrite to begin anew"
        )
    with storage.naming(output.path), storage.open_file(output.path, "wb") as file:
        file.write(header)
        file.truncate(size)


def features_of(
    layout: Layout, vocabulary: Vocabulary, *, bag_sizes: Sequence[int], stored: bool = False
) -> tuple[FeatureSpec, ...]:
    """The features as the manifest lists them: dense, discretised, categorical, multi-valued, weight, kept.

    Args:
        layout: What the rows hold.
        vocabulary: With the rows of the tables.
        bag_sizes: For each categorical feature the size of its bag; empty: no bags.
        stored: Whether these bags are written out.
    """
    rows = dict(zip(vocabulary.features, vocabulary.rows, strict=True))
    found = [
        FeatureSpec(
            name=name,
            kind="dense",
            file=DENSE_FILE,
            column=column,
            transform=MLPERF_TRANSFORM if transform == RAW_TRANSFORM else transform,
        )
        for column, (name, transform) in enumerate(layout.dense)
    ]
    found += [
        FeatureSpec(
            name=numeric.name,
            kind="id",
            file=NUMERIC_IDS_FILE,
            column=column,
            rows=numeric.rows,
            transform=numeric.transform,
        )
        for column, numeric in enumerate(layout.numeric_ids)
    ]
    for column, name in enumerate(layout.ids):
        size = bag_sizes[column] if bag_sizes else 1
        if size == 1:
            found.append(FeatureSpec(name=name, kind="id", file=SPARSE_FILE, column=column, rows=rows[name]))
            continue
        file, place = (name, 0) if stored else (SPARSE_FILE, column)
        found.append(FeatureSpec(name=name, kind="bag", file=file, column=place, rows=rows[name], bag_size=size))
    found += [FeatureSpec(name=name, kind="bag", file=name, column=0, rows=rows[name]) for name in layout.bags]
    if layout.has_weights:
        found.append(FeatureSpec(name="weight", kind="weight", file=WEIGHT_FILE, column=0))
    found += [
        FeatureSpec(name=kept.name, kind="kept", file=kept_file(kept.name), column=0, dtype=kept.dtype)
        for kept in layout.kept
    ]
    return tuple(found)


def bag_totals(
    records: Sequence[PieceRecord], bound: BoundSplit, *, split: Split, layout: Layout, folder: str
) -> tuple[list[list[int]], list[tuple[tuple[int, ...], ...]]]:
    """How many values each part's bags have, and for each piece, cut and bag where its values begin in the part's."""
    totals = [[0] * len(layout.bags) for _ in split.names]
    starts: list[tuple[tuple[int, ...], ...]] = []
    if not layout.bags:
        return totals, [tuple(() for _ in cuts) for cuts in bound.cuts]
    for record, cuts, first_row in zip(records, bound.cuts, bound.first_rows, strict=True):
        counted = _bag_values(record, cuts, first_row=first_row, split=split, layout=layout, folder=folder)
        of_piece = []
        for cut, counts in zip(cuts, counted, strict=True):
            of_piece.append(tuple(totals[cut.part]))
            totals[cut.part] = [total + count for total, count in zip(totals[cut.part], counts, strict=True)]
        starts.append(tuple(of_piece))
    return totals, starts


def _bag_values(
    record: PieceRecord, cuts: Sequence[PieceCut], *, first_row: int, split: Split, layout: Layout, folder: str
) -> list[list[int]]:
    """For each cut and bag the number of its values; kept in a file, since the rows go once they are written."""
    path = record.name.path(folder, "bag_values.json")
    if storage.is_file(path):
        return [list(counts) for counts in storage.read_json(path)]
    counted = [[0] * len(layout.bags) for _ in cuts]
    start = 0
    for num_rows, arrays in kept_blocks(folder, record, layout):
        for place, cut in enumerate(cuts):
            chosen = rows_of_cut(cut, split, arrays, start=start, first_row=first_row, num_rows=num_rows)
            for index, name in enumerate(layout.bags):
                counted[place][index] += int(arrays[f"{name}_lengths"][chosen].sum())
        start += num_rows
    storage.write_json(path, counted, durable=False)
    return counted
