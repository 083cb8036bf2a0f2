"""Reading a prepared folder in blocks of rows, in any process, with a count of what was read for the progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import DataManifest, FeatureSpec, Part
from trainer.data.reading.array_files import ArrayShape, open_part_file

BLOCK_ROWS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class PreparedBlocks:
    """A prepared folder and which of its parts the others are compared with.

    Attributes:
        root: the folder.
        manifest: its manifest.
        reference: names of the parts that later ones are compared with.
    """

    root: str
    manifest: DataManifest
    reference: tuple[str, ...]

    @property
    def parts(self) -> list[Part]:
        """The reference parts, then the others, each in time order."""
        return sorted(self.manifest.parts, key=lambda part: part.name not in self.reference)

    def array(self, part: Part, file: str, shape: ArrayShape) -> NDArray:
        """A part's array, mapped.

        Raises:
            DataError: not there, not whole or of another shape.
        """
        if file not in part.files:
            raise DataError(
                f"{storage.join(self.root, 'manifest.json')}: part {part.name!r} has no file {file!r}; prepare it again"
            )
        found = part.files[file]
        return open_part_file(self.root, found, shape=shape).array

    def offsets(self, part: Part, feature: FeatureSpec) -> NDArray[np.int64]:
        """Where the bags of a part's rows begin, and behind the last.

        Raises:
            DataError: as `array`, or they do not run from 0 upwards.
        """
        found = self.array(part, f"{feature.file}_offsets", ArrayShape(dtype=np.int64, num_rows=part.num_rows + 1))
        if found[0] != 0 or any((np.diff(found[a : b + 1]) < 0).any() for a, b in blocks_of(part.num_rows)):
            raise DataError(f"part {part.name!r}: the offsets of {feature.name} do not rise from 0; prepare it again")
        return found

    def num_ids(self, part: Part, feature: FeatureSpec) -> int:
        """Ids of a feature that a part holds.

        Raises:
            DataError: as `offsets`.
        """
        return int(self.offsets(part, feature)[-1]) if feature.has_offsets and part.num_rows else part.num_rows

    def ids(self, part: Part, features: Sequence[FeatureSpec]) -> Iterator[tuple[int, list[NDArray[np.int32]]]]:
        """Rows of a block, and the ids in it of each feature (of bags made from their first id: that one).

        Raises:
            DataError: a file is not there or not whole.
        """
        if not part.num_rows:
            return
        readers = [self._reader(part, feature) for feature in features]
        for start, stop in blocks_of(part.num_rows):
            yield stop - start, [read(start, stop) for read in readers]

    def _reader(self, part: Part, feature: FeatureSpec) -> Callable[[int, int], NDArray[np.int32]]:
        if feature.has_offsets:
            offsets = self.offsets(part, feature)
            values = self.array(part, f"{feature.file}_values", ArrayShape(dtype=np.int32, num_rows=int(offsets[-1])))
            return lambda start, stop: values[offsets[start] : offsets[stop]]
        column = feature.column
        table = self.array(
            part, feature.file, ArrayShape(dtype=np.int32, num_rows=part.num_rows, num_columns=column + 1)
        )
        return lambda start, stop: np.ascontiguousarray(table[start:stop, column])


def blocks_of(num_rows: int) -> Iterator[tuple[int, int]]:
    """First row of each block, and the row behind it."""
    for start in range(0, num_rows, BLOCK_ROWS):
        yield start, min(start + BLOCK_ROWS, num_rows)


def bands(mass: NDArray[np.float64], num_bands: int) -> NDArray[np.int64]:
    """Cuts things in order into bands of about equal mass; gives each thing's band."""
    total = float(mass.sum())
    before = np.cumsum(mass) - mass
    band = (before * (num_bands / total)).astype(np.int64) if total else np.zeros(len(mass), np.int64)
    return np.minimum(band, num_bands - 1)


def stability_index(reference: NDArray, found: NDArray) -> float | None:
    """Population stability index of counts by group: the sum of (q - p) ln(q / p); shares are at least 1e-4 in it."""
    if not reference.sum() or not found.sum():
        return None
    p = np.maximum(reference / reference.sum(), 1e-4)
    q = np.maximum(found / found.sum(), 1e-4)
    return float(((q - p) * np.log(q / p)).sum())
