"""Click logs as text, and what they mean by a reader of a few plain lines that shares nothing with ours."""

from __future__ import annotations

import gzip
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

NUM_DENSE = 13
NUM_SPARSE = 26
_HEX_LINE = re.compile(rb"[01](\t(-?[0-9]+)?){13}(\t([0-9a-fA-F]{1,8})?){26}")
_INT_LINE = re.compile(rb"[01](\t(-?[0-9]+)?){39}")


@dataclass(frozen=True)
class PlainRow:
    """A line, read by the definition; None: missing."""

    label: int | None
    numbers: tuple[int | None, ...]
    values: tuple[int | None, ...]


@dataclass(frozen=True)
class PlainLog:
    """A whole log: its rows, and the numbers of the lines that are none, from 1."""

    rows: tuple[PlainRow, ...]
    bad: tuple[int, ...]


def synthetic_lines(num_rows: int, *, seed: int = 0, tokens: str = "hex", labelled: bool = True) -> list[str]:
    """Lines with missing, negative and large integers, and values from one end of their range to the other."""
    draw = random.Random(seed)
    if tokens == "hex":
        values = ["0", "ffffffff", "80000000", "FFFFFFFE", "00000000"]
        values += [f"{draw.getrandbits(32):08x}" for _ in range(50)]
    else:
        values = ["0", "-1", str(2**63 - 1), str(-(2**63)), *(str(draw.getrandbits(64) - 2**63) for _ in range(50))]
    lines = []
    for _ in range(num_rows):
        numbers = ["" if draw.random() < 0.2 else str(int(draw.paretovariate(0.6)) - 3) for _ in range(NUM_DENSE)]
        # The same value comes in several spellings: a leading zero changes nothing.
        chosen = ["" if draw.random() < 0.2 else draw.choice(values) for _ in range(NUM_SPARSE)]
        lines.append("\t".join([str(draw.randint(0, 1))] * labelled + numbers + chosen))
    return lines


def write_log(path: Path, lines: Sequence[str]) -> str:
    """Writes the lines, as gzip where the name ends in .gz."""
    data = ("\n".join(lines) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return str(path)


def plain_log(data: bytes, *, tokens: str = "hex", labelled: bool = True, bits: int = 64) -> PlainLog:
    """Reads a log's text; `bits`: what an integer must fit into."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    rows, bad = [], []
    for number, line in enumerate(lines, start=1):
        row = plain_row(line.removesuffix(b"\r"), tokens=tokens, labelled=labelled, bits=bits)
        if row is None:
            bad.append(number)
        else:
            rows.append(row)
    return PlainLog(rows=tuple(rows), bad=tuple(bad))


def plain_row(line: bytes, *, tokens: str = "hex", labelled: bool = True, bits: int = 64) -> PlainRow | None:
    """One line; None where it is no row."""
    whole = line if labelled else b"0\t" + line
    if not (_HEX_LINE if tokens == "hex" else _INT_LINE).fullmatch(whole):
        return None
    label, *fields = whole.split(b"\t")
    base = 16 if tokens == "hex" else 10
    fields = [re.sub(rb"^(-?)0+(?=.)", rb"\1", field) for field in fields]
    if any(len(field) > 20 for field in fields):
        return None
    numbers = tuple(int(field) if field else None for field in fields[:NUM_DENSE])
    values = tuple(int(field, base) if field else None for field in fields[NUM_DENSE:])
    within = [(numbers, bits), (values, 64)]
    for found, size in within:
        if any(number is not None and not -(2 ** (size - 1)) <= number < 2 ** (size - 1) for number in found):
            return None
    return PlainRow(label=int(label) if labelled else None, numbers=numbers, values=values)


def plain_dense(rows: Iterable[PlainRow]) -> np.ndarray:
    """sign(x) ln(1 + |x|) of the numbers, 0 where missing: float32 [N, 13]."""
    return np.array(
        [[math.copysign(math.log1p(abs(x)), x) if x else 0.0 for x in row.numbers] for row in rows], np.float32
    ).reshape(-1, NUM_DENSE)


def plain_labels(rows: Iterable[PlainRow]) -> np.ndarray:
    """Labels int32 [N, 1]."""
    return np.array([[row.label] for row in rows], np.int32).reshape(-1, 1)


def plain_ids(rows: Sequence[PlainRow], dictionaries: Sequence[dict[int, int]]) -> np.ndarray:
    """Ids int32 [N, 26]: 0 missing, 1 not in the dictionary."""
    return np.array(
        [
            [0 if value is None else ids.get(value, 1) for value, ids in zip(row.values, dictionaries, strict=True)]
            for row in rows
        ],
        np.int32,
    ).reshape(-1, NUM_SPARSE)


def saved_dictionaries(root: Path) -> list[dict[int, int]]:
    """Value -> id of C1 to C26, as the Parquet files of a prepared folder say."""
    found = []
    for number in range(1, NUM_SPARSE + 1):
        table = pq.read_table(root / "dictionary" / f"C{number}.parquet")
        found.append(dict(zip(table["value"].to_pylist(), table["id"].to_pylist(), strict=True)))
    return found


def plain_dictionaries(rows: Iterable[PlainRow], *, min_count: int) -> list[dict[int, int]]:
    """Value -> id of C1 to C26: from 2 by descending count, equals in the order of the values."""
    counted: list[Counter[int]] = [Counter() for _ in range(NUM_SPARSE)]
    for row in rows:
        for counter, value in zip(counted, row.values, strict=True):
            if value is not None:
                counter[value] += 1
    found = []
    for counter in counted:
        kept = sorted((v for v, n in counter.items() if n >= min_count), key=lambda v: (-counter[v], v))
        found.append({value: place for place, value in enumerate(kept, start=2)})
    return found


def murmur32(value: int) -> int:
    """The finaliser of MurmurHash3 for 32 bits, as its author wrote it."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16
