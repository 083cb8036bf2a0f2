"""How long the bags of a feature are, and how many are empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.analysis.data_report.blocks import PreparedBlocks, blocks_of
from trainer.data.manifest import MISSING_ID, FeatureSpec
from trainer.data.reading.array_files import ArrayShape

_QUANTILES = (0.5, 0.95, 1.0)


@dataclass(frozen=True, kw_only=True)
class BagFigures:
    """Lengths over all parts, and rows by part that are empty or begin with id 0; None where the ids tell."""

    mean_length: float | None
    length_quantiles: dict[str, int]
    missing: dict[str, int] | None


def bag_figures(source: PreparedBlocks, feature: FeatureSpec) -> BagFigures:
    """Reads the offsets of a feature's bags; features of one id a row, or of so many, need no reading.

    Raises:
        DataError: a file is damaged.
    """
    if not feature.has_offsets:
        length = feature.bag_size or 1
        return BagFigures(
            mean_length=float(length), length_quantiles={str(q): length for q in _QUANTILES}, missing=None
        )
    counts = np.zeros(1, np.int64)  # rows by length
    missing = {}
    for part in source.manifest.parts:
        missing[part.name] = 0
        if not part.num_rows:
            continue
        offsets = source.offsets(part, feature)
        values = source.array(part, f"{feature.file}_values", ArrayShape(dtype=np.int32, num_rows=int(offsets[-1])))
        for start, stop in blocks_of(part.num_rows):
            begin = offsets[start:stop]
            lengths = offsets[start + 1 : stop + 1] - begin
            found = np.bincount(lengths, minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
            missing[part.name] += int((lengths == 0).sum() + (values[begin[lengths > 0]] == MISSING_ID).sum())
    num_rows, ends = int(counts.sum()), np.cumsum(counts)
    if not num_rows:
        return BagFigures(mean_length=None, length_quantiles={}, missing=missing)
    quantiles = {str(q): int(np.searchsorted(ends, max(q * num_rows, 1))) for q in _QUANTILES}
    mean = float((counts * np.arange(len(counts))).sum() / num_rows)
    return BagFigures(mean_length=mean, length_quantiles=quantiles, missing=missing)
