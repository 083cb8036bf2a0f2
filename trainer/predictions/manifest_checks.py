"""Whether the values of a prediction manifest are what they should be, before anything believes them.

Each function raises ValueError, "key: what is wrong".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from modules.merge import MERGED, MergeRule
from trainer.metrics.exact import BinaryMetrics

_FIGURES = tuple(field.name for field in fields(BinaryMetrics))
_ROW_HASH = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_manifest(body: Mapping[str, Any]) -> None:
    """Checks all values of a manifest's JSON, whose keys are complete."""
    members, parts = body["members"], body["parts"]
    _names("members", members)
    if not members:
        raise ValueError("members: none")
    if MERGED in members:
        raise ValueError(f"members: {MERGED!r} is the merge's name")
    _names("kept", body["kept"])
    for key in ("parts", "data", "settings", "metrics", "metrics_by_part", "calibration_curves"):
        _mapping(key, body[key])
    for part, rows in parts.items():
        if not part or re.search(r"[/\\\0]", part):
            raise ValueError(f"parts: {part!r} is no name of a part")
        _whole(f"parts.{part}", rows)
    _check_merge(body["merge"], members)
    _check_checkpoints(body["checkpoints"])
    _check_files(body["files"], parts)
    _check_figures(body, members=members, parts=parts)


def _check_merge(merge: Any, members: Sequence[str]) -> None:
    _mapping("merge", merge)
    try:
        rule = MergeRule.of_json(merge)
    except ValueError as error:
        raise ValueError(f"merge.{error}") from None
    unknown = [name for name in rule.members if name not in members]
    if unknown:
        raise ValueError(f"merge.members: {unknown[0]!r} is not among the members {', '.join(members)}")


def _check_checkpoints(checkpoints: Any) -> None:
    for place, one in enumerate(_list("checkpoints", checkpoints)):
        key = f"checkpoints[{place}]"
        _mapping(key, one)
        for name in ("label", "folder"):
            _text(f"{key}.{name}", one.get(name))
        _whole(f"{key}.step", one.get("step"))


def _check_files(files: Any, parts: Mapping[str, int]) -> None:
    """Files of the right form, in order, that hold each row of each part once."""
    reached = dict.fromkeys(parts, 0)
    order = list(parts)
    before = 0
    for place, file in enumerate(_list("files", files)):
        key = f"files[{place}]"
        _check_file(key, file, parts)
        part, first = file["part"], file["first_row"]
        if first > reached[part]:
            raise ValueError(f"files: rows {reached[part]:,} to {first - 1:,} of {part} are missing")
        if first < reached[part]:
            raise ValueError(f"{key}.first_row: rows {first:,} to {reached[part] - 1:,} of {part} are there already")
        if order.index(part) < before:
            raise ValueError(f"{key}.part: {part!r} comes behind {order[before]!r}, and before it in parts")
        reached[part], before = first + file["num_rows"], order.index(part)
    for part, rows in parts.items():
        if reached[part] < rows:
            raise ValueError(f"files: rows {reached[part]:,} to {rows - 1:,} of {part} are missing")
        if reached[part] > rows:
            raise ValueError(f"files: end at row {reached[part] - 1:,} of {part}, which has {rows:,} rows")


def _check_file(key: str, file: Any, parts: Mapping[str, int]) -> None:
    _mapping(key, file)
    part = file.get("part")
    if not isinstance(part, str) or part not in parts:
        raise ValueError(f"{key}.part: {part!r} is not among the parts")
    first, rows = _whole(f"{key}.first_row", file.get("first_row")), _whole(f"{key}.num_rows", file.get("num_rows"))
    if not rows:
        raise ValueError(f"{key}.num_rows: 0")
    wanted = f"{part}-{first:012d}.parquet"
    if file.get("path") != wanted:
        raise ValueError(f"{key}.path: {file.get('path')!r} is not {wanted!r}, as its part and first row say")
    label_sum = file.get("label_sum")
    if label_sum is not None and _whole(f"{key}.label_sum", label_sum) > rows:
        raise ValueError(f"{key}.label_sum: {label_sum:,} of {rows:,} rows")
    _whole(f"{key}.num_bytes", file.get("num_bytes"))
    for name, form, digits in (("row_hash", _ROW_HASH, 16), ("sha256", _SHA256, 64)):
        if not form.fullmatch(_text(f"{key}.{name}", file.get(name))):
            raise ValueError(f"{key}.{name}: {file[name]!r} is not {digits} hex digits")


def _check_figures(body: Mapping[str, Any], *, members: Sequence[str], parts: Mapping[str, int]) -> None:
    columns = {*members, MERGED}
    _check_metrics("metrics", body["metrics"], columns)
    for part, metrics in body["metrics_by_part"].items():
        if part not in parts:
            raise ValueError(f"metrics_by_part: {part!r} is not among the parts")
        _mapping(f"metrics_by_part.{part}", metrics)
        _check_metrics(f"metrics_by_part.{part}", metrics, columns)
    _same_columns("calibration_curves", body["calibration_curves"], columns)
    for name, points in body["calibration_curves"].items():
        for place, point in enumerate(_list(f"calibration_curves.{name}", points)):
            _numbers(f"calibration_curves.{name}[{place}]", point)


def _check_metrics(key: str, metrics: Mapping[str, Any], columns: set[str]) -> None:
    _same_columns(key, metrics, columns)
    for name, figures in metrics.items():
        _numbers(f"{key}.{name}", figures)
        missing = [figure for figure in _FIGURES if figure not in figures]
        if missing:
            raise ValueError(f"{key}.{name}.{missing[0]}: missing")
        _whole(f"{key}.{name}.num_rows", figures["num_rows"])


def _same_columns(key: str, found: Mapping[str, Any], columns: set[str]) -> None:
    if found and set(found) != columns:
        odd = sorted(columns.symmetric_difference(found))[0]
        raise ValueError(f"{key}: {odd!r} is {'missing' if odd in columns else 'no member'}")


def _numbers(key: str, values: Any) -> None:
    _mapping(key, values)
    for name, value in values.items():
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"{key}.{name}: {value!r} is no number")


def _mapping(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: {value!r} is no table of values")


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key}: {value!r} is no list")
    return value


def _names(key: str, value: Any) -> None:
    for place, name in enumerate(_list(key, value)):
        if not _text(key, name):
            raise ValueError(f"{key}: an empty name")
        if name in value[:place]:
            raise ValueError(f"{key}: {name!r} is named twice")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key}: {value!r} is no text")
    return value


def _whole(key: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{key}: {value!r} is no whole number from zero up")
    return value
