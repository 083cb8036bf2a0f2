"""Schemas and readings for the tests of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from configs.loader import read_table_schema
from configs.table_schema import TableSchema
from trainer.data.preparing.parsed import Layout, ParsedRows


def schema_of(folder: Path, text: str) -> TableSchema:
    """A schema from its text."""
    path = folder / "schema.toml"
    path.write_text(text)
    return read_table_schema(str(path))


def read_pieces(table: Any, path: Path) -> list[ParsedRows]:
    """A file's blocks, parsed, each checked to account for all its lines."""
    known = table.num_pieces(str(path))
    parsed = []
    for piece in range(known) if known is not None else [0]:
        for _, _, block in table.blocks(str(path), first_piece=piece, done=frozenset()):
            if block is not None:
                rows = table.parse(block)
                check_rows(rows, table.layout, num_lines=block.num_lines)
                parsed.append(rows)
    return parsed


def check_rows(rows: ParsedRows, layout: Layout, *, num_lines: int) -> None:
    """Every line is a row or bad, once; arrays have the shapes and types of the contract."""
    num_rows = rows.num_rows
    assert num_rows + len(rows.bad) == num_lines
    lines = [bad.line for bad in rows.bad]
    assert lines == sorted(set(lines)) and all(0 <= line < num_lines for line in lines)
    assert all(bad.reason for bad in rows.bad)
    _check(rows.labels, layout.has_labels, (num_rows,), np.int32)
    _check(rows.weights, layout.has_weights, (num_rows,), np.float32)
    _check(rows.part, bool(layout.parts), (num_rows,), np.int16)
    _check(rows.dense, True, (num_rows, len(layout.dense)), np.float32)
    _check(rows.values, True, (len(layout.ids), num_rows), np.uint64)
    _check(rows.missing, True, (len(layout.ids), num_rows), np.bool_)
    _check(rows.numeric_ids, bool(layout.numeric_ids), (num_rows, len(layout.numeric_ids)), np.int32)
    assert np.isfinite(rows.dense).all()
    assert not rows.values[rows.missing].any()
    assert len(rows.bags) == len(layout.bags)
    for bag in rows.bags:
        _check(bag.lengths, True, (num_rows,), np.int32)
        _check(bag.values, True, (int(bag.lengths.sum()),), np.uint64)


def _check(array: np.ndarray | None, there: bool, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    assert (array is not None) == there
    if array is not None:
        assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous
