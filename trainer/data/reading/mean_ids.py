"""mean_ids(): how many ids a row has of each feature, from what the files of a source are, without reading ids."""

from __future__ import annotations

from trainer.data.reading.feature_layout import JaggedBag, values_role
from trainer.data.reading.source import PreparedSource, RowSource


def mean_ids(source: RowSource) -> dict[str, float]:
    """Id feature -> mean ids of a row: the size of bags of one size, else all ids over all rows.

    The synthetic stream has one id of each.
    """
    features = source.features.table_rows
    if not isinstance(source, PreparedSource):
        return dict.fromkeys(features, 1.0)
    means: list[float] = []
    for segment in source.layout.segments:
        if isinstance(segment, JaggedBag):
            num_ids = sum(len(arrays[values_role(segment.name)].array) for arrays in source.arrays)
            means.append(num_ids / max(source.num_rows, 1))
        else:
            means.extend(map(float, segment.sizes))
    return dict(zip(features, means, strict=True))
