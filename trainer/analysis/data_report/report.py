"""The report on a prepared folder: what its features hold, how skewed they are, and how they change from part to part.

`report` gives, and report.json holds (a figure that is not defined is null; shares are from 0 to 1):

    format, format_version      "chorus-data-report", 1
    root, num_rows, label_rate
    reference_parts             names of the parts that the others are compared with
    parts                       name, num_rows, label_rate
    id_features                 one for each feature of a table:
      name, kind, table_rows    kind id or bag
      num_ids                   lookups; as many as rows unless it is a bag of any length. Of a bag made from its first
                                id only that one is counted, here and below
      distinct                  values that occur (ids from 2 on)
      missing_share             of the rows
      rare_share                of the ids: id 1, rare or unseen
      top_shares                {"1": ..., "10": ..., ...}: of the ids, held by the 1, 10, ... most frequent values
      zipf_exponent             s in frequency ~ rank^-s, fitted over ids that occur 5 times or more
      mean_bag_length, bag_length_quantiles {"0.5": ..., "0.95": ..., "1.0": ...}
      parts                     name, num_ids, missing_share, rare_share, unseen_share (of the ids: values that no
                                reference part holds), drift_psi
    numeric_features            name, kind (dense or weight), transform, parts: name, zero_share (missing values are 0),
                                not_finite (rows), mean, quantiles {"0.01": ..., ...} (off by 0.1 % at most), drift_psi

drift_psi is the population stability index against the reference parts: over tenths of the reference for numbers, over
groups of about equally frequent ids for ids. Below 0.1 is stable, above 0.25 another distribution.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from configs.errors import ConfigError
from trainer.analysis.data_report.bags import bag_figures
from trainer.analysis.data_report.blocks import PreparedBlocks
from trainer.analysis.data_report.ids import (
    IdRange,
    RangeTally,
    cut_ranges,
    drift,
    id_figures,
    tally_ranges,
)
from trainer.analysis.data_report.numeric import tally_numbers
from trainer.data.manifest import DataManifest, FeatureSpec
from trainer.row_progress import RowProgress
from trainer.worker_processes import worker_processes

FORMAT = "chorus-data-report"
FORMAT_VERSION = 1
_SECONDS_BETWEEN = 0.5
_STOPPED = -(1 << 62)

# In a worker process: what it reads, and where it counts what it has read.
_source: PreparedBlocks | None = None
_read: Any = None


def report(root: str, *, reference: Sequence[str], memory_bytes: int, num_workers: int) -> dict[str, Any]:
    """Reads a prepared folder once (more often where its tables do not fit the memory) and gives its figures.

    Args:
        root: the prepared folder.
        reference: parts that the others are compared with; none: the first that has rows.
        memory_bytes: for counting ids, of all processes together.
        num_workers: processes.

    Raises:
        DataError: not a prepared folder, or a file of it is damaged.
        ConfigError: no such part.
    """
    manifest = DataManifest.read(root)
    source = PreparedBlocks(root=root, manifest=manifest, reference=_reference(manifest, reference))
    ids = list(manifest.id_features)
    numbers = [feature for feature in manifest.features if feature.kind in ("dense", "weight")]
    tallies, figures = _tally(source, ids, numbers, memory_bytes=memory_bytes, num_workers=num_workers)
    num_rows = sum(part.num_rows for part in manifest.parts)
    labelled = [part for part in manifest.parts if part.label_sum is not None]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "root": root,
        "num_rows": num_rows,
        "label_rate": _share(sum(part.label_sum or 0 for part in labelled), sum(part.num_rows for part in labelled)),
        "reference_parts": list(source.reference),
        "parts": [
            {
                "name": part.name,
                "num_rows": part.num_rows,
                "label_rate": None if part.label_sum is None else _share(part.label_sum, part.num_rows),
            }
            for part in manifest.parts
        ],
        "id_features": [_of_ids(source, feature, tallies[feature.name]) for feature in ids],
        "numeric_features": [_of_numbers(source, feature, figures[feature.name]) for feature in numbers],
    }


def _reference(manifest: DataManifest, names: Sequence[str]) -> tuple[str, ...]:
    there = [part.name for part in manifest.parts]
    for name in names:
        if name not in there:
            raise ConfigError(f"--reference: no part {name!r} in the prepared folder, which has {', '.join(there)}")
    return tuple(names) or tuple([part.name for part in manifest.parts if part.num_rows][:1])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _of_ids(source: PreparedBlocks, feature: FeatureSpec, tallies: list[RangeTally]) -> dict[str, Any]:
    figures = id_figures(tallies)
    bags = bag_figures(source, feature)
    parts = []
    for part in source.manifest.parts:
        of_part = [one.parts[part.name] for one in tallies]
        num_ids = sum(one.num_ids for one in of_part)
        unseen, index = drift(tallies, part.name)
        missing = sum(one.missing for one in of_part) if bags.missing is None else bags.missing[part.name]
        parts.append(
            {
                "name": part.name,
                "num_ids": num_ids,
                "missing_share": _share(missing, part.num_rows),
                "rare_share": _share(sum(one.rare for one in of_part), num_ids),
                "unseen_share": unseen,
                "drift_psi": index,
            }
        )
    num_rows = sum(part.num_rows for part in source.manifest.parts)
    missing = figures.missing if bags.missing is None else sum(bags.missing.values())
    return {
        "name": feature.name,
        "kind": feature.kind,
        "table_rows": feature.rows,
        "num_ids": figures.num_ids,
        "distinct": figures.distinct,
        "missing_share": _share(missing, num_rows),
        "rare_share": _share(figures.rare, figures.num_ids),
        "top_shares": figures.top_shares,
        "zipf_exponent": figures.zipf_exponent,
        "mean_bag_length": bags.mean_length,
        "bag_length_quantiles": bags.length_quantiles,
        "parts": parts,
    }


def _of_numbers(source: PreparedBlocks, feature: FeatureSpec, by_part: dict[str, Any]) -> dict[str, Any]:
    nothing: dict[str, Any] = {"zero_share": None, "not_finite": 0, "mean": None, "quantiles": {}, "drift_psi": None}
    return {
        "name": feature.name,
        "kind": feature.kind,
        "transform": feature.transform,
        "parts": [{"name": part.name, **(by_part[part.name] or nothing)} for part in source.manifest.parts],
    }


def _tally(
    source: PreparedBlocks,
    ids: Sequence[FeatureSpec],
    numbers: Sequence[FeatureSpec],
    *,
    memory_bytes: int,
    num_workers: int,
) -> tuple[dict[str, list[RangeTally]], dict[str, dict[str, Any]]]:
    """Counts in worker processes; gives the ranges of each id feature and the figures of each number."""
    # A number of 32 bits can count the ids of a feature unless there are more than it can hold.
    most = max((sum(source.num_ids(part, feature) for part in source.parts) for feature in ids), default=0)
    count_bytes = 4 if most < 1 << 32 else 8
    for_each = max(1, memory_bytes // num_workers)
    ranges = cut_ranges(ids, count_bytes=count_bytes, most_bytes=for_each)
    groups = _groups(ranges, num_groups=num_workers, most_bytes=for_each, count_bytes=count_bytes)
    shares = [numbers[at::num_workers] for at in range(num_workers)]
    num_rows = sum(part.num_rows for part in source.manifest.parts)
    read = multiprocessing.get_context("spawn").Value("q", 0)
    with worker_processes(num_workers, begin=_begin, arguments=(source, read)) as pool:
        of_ids = [(group, pool.submit(_tally_ids, group, count_bytes)) for group in groups]
        of_numbers = [(share, pool.submit(_tally_numbers, share)) for share in shares if share]
        futures: list[Future[Any]] = [*(one for _, one in of_ids), *(one for _, one in of_numbers)]
        try:
            _tell(futures, read, num_rows=num_rows, times=len(ranges) + len(numbers))
        except BaseException:
            read.value = _STOPPED  # or the pool would wait until all have read to the end
            raise
        tallies: dict[str, list[RangeTally]] = {feature.name: [] for feature in ids}
        for group, future in of_ids:
            for one, tally in zip(group, future.result(), strict=True):
                tallies[one.feature.name].append(tally)
        figures = {
            feature.name: found
            for share, future in of_numbers
            for feature, found in zip(share, future.result(), strict=True)
        }
    return tallies, figures


def _groups(ranges: Sequence[IdRange], *, num_groups: int, most_bytes: int, count_bytes: int) -> list[list[IdRange]]:
    """Shares out ranges so that none of the groups needs more than `most_bytes`, and all are about as long."""
    groups: list[list[IdRange]] = [[] for _ in range(num_groups)]
    sizes = [0] * num_groups
    for one in sorted(ranges, key=lambda one: one.first - one.last):
        needed = one.num_bytes(count_bytes)
        fitting = [at for at, size in enumerate(sizes) if size + needed <= most_bytes or not size]
        if not fitting:
            groups.append([])
            sizes.append(0)
        at = min(fitting, key=lambda at: len(groups[at])) if fitting else len(groups) - 1
        groups[at].append(one)
        sizes[at] += needed
    return [group for group in groups if group]


def _tell(futures: Sequence[Future[Any]], read: Any, *, num_rows: int, times: int) -> None:
    """Shows the progress until all is done, or something failed."""
    progress, told, open_ones = RowProgress("reading", num_rows), 0, set(futures)
    while open_ones:
        done, open_ones = wait(open_ones, timeout=_SECONDS_BETWEEN, return_when=FIRST_COMPLETED)
        for one in done:
            one.result()
        rows = read.value // times
        progress.add(rows - told)
        told = rows


def _begin(source: PreparedBlocks, read: Any) -> None:
    global _source, _read
    _source, _read = source, read


def _count(num_rows: int) -> None:
    with _read.get_lock():
        _read.value += num_rows
        if _read.value < 0:
            raise InterruptedError("another process has failed")


def _tally_ids(ranges: Sequence[IdRange], count_bytes: int) -> list[RangeTally]:
    assert _source is not None
    return tally_ranges(_source, ranges, count_bytes=count_bytes, told=_count)


def _tally_numbers(features: Sequence[FeatureSpec]) -> list[dict[str, Any]]:
    assert _source is not None
    return tally_numbers(_source, features, told=_count)
