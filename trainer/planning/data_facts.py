"""DataFacts: what planning needs to know of the rows: tables, bag lengths, skew, how many there are.

They come from a prepared folder, the synthetic stream, a data report (tools/report_data.py) or an outline
(configs/outlines/), whichever is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError, DataError
from configs.loader import read_outline
from configs.schema import RunConfig
from trainer import storage
from trainer.analysis.data_report.report import FORMAT, FORMAT_VERSION
from trainer.data.manifest import MANIFEST_NAME, NUMERIC_ID_SUFFIX, DataManifest
from trainer.data.reading.mean_ids import mean_ids
from trainer.data.reading.opening import open_scoring_source, open_sources
from trainer.data.reading.source import PreparedSource, RowSource, SourceFeatures
from trainer.planning.distinct_ids import fitted_zipf

_SAMPLED_ROWS = 131_072
_SAMPLED_IDS = 8_000_000
_SAMPLED_RUNS = 64
_LARGEST_BATCH = 65_536
_VALUE_BYTES = 4  # numbers, ids and labels, prepared
_OTHER_DATA = "a folder that is there, an outline (.toml, as those of configs/outlines) or a data report (.json)"


@dataclass(frozen=True, kw_only=True)
class IdTraffic:
    """How a feature's ids come."""

    mean_ids: float = 1.0  # of a row
    zipf: float = 0.0  # s in frequency ~ rank^-s; 0: uniform
    first_half: float = 0.5  # share of the ids that are in the first half of the table's rows


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The rows in numbers."""

    features: SourceFeatures
    traffic: Mapping[str, IdTraffic]  # id feature -> how its ids come
    train_rows: int  # of an epoch
    score_rows: int
    stored_bytes: int  # of a row on the disk
    origin: str  # where this is from, for people


def data_facts(config: RunConfig, *, path: str = "") -> DataFacts:
    """The rows that a run trains on and scores, in numbers.

    Args:
        config: The run; `[data]` and `score.parts` name its parts. An outline has no parts.
        path: In place of `data.root`: another prepared folder, a data report (.json) or an outline (.toml).

    Raises:
        ConfigError: there is no such file or folder, an outline has problems, or parts are named wrongly.
        DataError: a prepared folder or report is damaged, lacks a part or holds no rows.
    """
    if path.endswith(".toml"):
        return _of_outline(path)
    if path.endswith(".json"):
        return _of_report(config, path)
    if path or config.data.root:
        return _of_folder(config, path or config.data.root, key="--data" if path else "data.root")
    return _of_stream(config)


def _of_outline(path: str) -> DataFacts:
    outline = read_outline(path)
    values = outline.dense + sum(feature.mean_ids for feature in outline.features.values()) + 1
    return DataFacts(
        features=SourceFeatures(
            dense_names=tuple(f"I{place}" for place in range(1, outline.dense + 1)),
            table_rows={name: feature.rows for name, feature in outline.features.items()},
            dictionary=f"outline {path}",
        ),
        traffic={
            name: IdTraffic(mean_ids=feature.mean_ids, zipf=feature.zipf, first_half=feature.first_half)
            for name, feature in outline.features.items()
        },
        train_rows=outline.num_rows,
        score_rows=outline.score_rows or outline.num_rows,
        stored_bytes=outline.stored_bytes or round(_VALUE_BYTES * values),
        origin=f"outline {path}",
    )


def _of_report(config: RunConfig, path: str) -> DataFacts:
    try:
        report = storage.read_json(path)
        if (report["format"], report["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("format")
        return _of_report_json(config, report, path)
    except FileNotFoundError:
        raise ConfigError(f"--data: no file {path!r}; tools/report_data.py writes one, as report.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a data report ({error!r}); make it with python tools/report_data.py --root FOLDER"
        ) from error


def _of_report_json(config: RunConfig, report: Mapping[str, Any], path: str) -> DataFacts:
    rows = {part["name"]: int(part["num_rows"]) for part in report["parts"]}
    ids = {feature["name"]: feature for feature in report["id_features"]}
    dense = tuple(feature["name"] for feature in report["numeric_features"] if feature["kind"] == "dense")
    all_rows = sum(rows.values())
    if not all_rows:
        raise DataError(f"{path}: the folder it reports on holds no rows; report on one that does")
    stored_ids = sum(feature["num_ids"] for feature in ids.values())
    return DataFacts(
        features=SourceFeatures(
            dense_names=dense,
            table_rows={name: int(feature["table_rows"]) for name, feature in ids.items()},
            dictionary=f"report {path}",
            numeric_ids={name: name + NUMERIC_ID_SUFFIX for name in dense if name + NUMERIC_ID_SUFFIX in ids},
        ),
        traffic={
            name: IdTraffic(
                mean_ids=float(feature["mean_bag_length"]),
                zipf=round(max(feature["zipf_exponent"] or 0.0, 0.0), 4),  # none: too few ids to have a skew
            )
            for name, feature in ids.items()
        },
        train_rows=_rows_of(config.data.train, rows, key="data.train", path=path),
        score_rows=_rows_of(config.score.parts, rows, key="score.parts", path=path),
        stored_bytes=round(_VALUE_BYTES * (len(dense) + stored_ids / all_rows + 1)),
        origin=f"data report {path}",
    )


def _rows_of(parts: Sequence[str], rows: Mapping[str, int], *, key: str, path: str) -> int:
    """Rows of these parts; of all, where none are named."""
    unknown = [name for name in parts if name not in rows]
    if unknown:
        raise ConfigError(f"{key}: {path} has no part {unknown[0]!r}; name some of {', '.join(rows)}")
    found = sum(rows[name] for name in parts or rows)
    if not found:
        raise DataError(f"{key}: its parts in {path} hold no rows; name parts that do")
    return found


def _of_folder(config: RunConfig, root: str, *, key: str) -> DataFacts:
    if not storage.is_file(storage.join(root, MANIFEST_NAME)):
        raise ConfigError(f"{key}: {root!r} is no prepared folder; prepare it, or give --data {_OTHER_DATA}")
    if key == "data.root" and not config.data.train:
        raise ConfigError("data.train: empty; name at least one part of data.root to train on")
    manifest = DataManifest.read(root)
    rows = {part.name: part.num_rows for part in manifest.parts}
    train_rows = _rows_of(config.data.train, rows, key="data.train", path=root)
    score_rows = _rows_of(config.score.parts, rows, key="score.parts", path=root)
    opened = list(config.data.train or rows)
    if storage.is_remote(root):  # every file that is opened is fetched whole
        opened = [min((name for name in opened if rows[name]), key=lambda name: rows[name])]
    source = PreparedSource(root=root, parts=opened)
    origin = f"prepared folder {root}, parts {', '.join(config.data.train or rows)}"
    if config.score.input:
        origin += "; score.input is not prepared, so the rows to score are those of its parts"
    return DataFacts(
        features=source.features,
        traffic=_sampled_traffic(source, batch_size=config.train.batch_size),
        train_rows=train_rows,
        score_rows=score_rows,
        stored_bytes=round(_stored_bytes(source) / source.num_rows),
        origin=origin,
    )


def _stored_bytes(source: PreparedSource) -> int:
    return sum(int(array.array.nbytes) for arrays in source.arrays for array in arrays.values())


def _of_stream(config: RunConfig) -> DataFacts:
    source = open_sources(config.data).train
    features = source.features
    return DataFacts(
        features=features,
        traffic=_sampled_traffic(source, batch_size=config.train.batch_size),
        train_rows=source.num_rows,
        score_rows=open_scoring_source(config.data, parts=config.score.parts).num_rows,
        stored_bytes=_VALUE_BYTES * (len(features.dense_names) + len(features.table_rows) + 1),
        origin="synthetic stream",
    )


def _sampled_traffic(source: RowSource, *, batch_size: int) -> dict[str, IdTraffic]:
    """Ids of a row, and the exponents at which a batch has as many distinct ids as batches of a sample had.

    The sample is up to 64 runs of rows spread over the source, each batch dealt from all of them: rows are trained in
    shuffled order, and neighbours in a log are more alike than that.
    """
    means = mean_ids(source)
    batch = min(batch_size, _LARGEST_BATCH, source.num_rows)
    sampled = min(source.num_rows, _SAMPLED_ROWS, int(_SAMPLED_IDS / max(1.0, sum(means.values()))))
    num_batches = max(1, sampled // batch)
    numbers = _spread_rows(source.num_rows, batch * num_batches)
    num_ids = np.zeros(len(means))
    distinct = np.zeros(len(means))
    early = np.zeros(len(means))
    halves = [size / 2 for size in source.features.table_rows.values()]
    for first in range(num_batches):
        rows = source.read(numbers[first::num_batches])
        sizes = rows.lengths.sum(axis=1) if rows.lengths.ndim == 2 else rows.lengths.astype(np.int64) * len(rows)
        num_ids += sizes
        by_feature = np.split(rows.values, np.cumsum(sizes)[:-1])
        distinct += [len(np.unique(ids)) for ids in by_feature]
        early += [np.count_nonzero(ids < half) for ids, half in zip(by_feature, halves, strict=True)]
    traffic = {}
    for at, (name, mean) in enumerate(means.items()):
        zipf = fitted_zipf(
            table_rows=source.features.table_rows[name],
            num_ids=float(num_ids[at] / num_batches),
            distinct=float(distinct[at] / num_batches),
        )
        share = float(early[at] / num_ids[at]) if num_ids[at] else 0.5
        traffic[name] = IdTraffic(mean_ids=mean, zipf=round(zipf, 4), first_half=round(share, 4))
    return traffic


def _spread_rows(num_rows: int, count: int) -> NDArray[np.int64]:
    """Numbers of `count` of the rows, in runs that are evenly spread over them."""
    runs = min(_SAMPLED_RUNS, count)
    at = np.arange(count, dtype=np.int64)
    run = at * runs // count
    return at + run * (num_rows - count) // max(1, runs - 1)
