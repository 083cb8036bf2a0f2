"""Parsers compared: the same block of a log's text to the same arrays, on one core, in turns.

Legend: N rows of the block.
"""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from configs.errors import ChorusError
from trainer.analysis.bench.figures import Findings
from trainer.analysis.bench.one_process import in_one_process
from trainer.analysis.bench.place import TEXT_BYTES_PER_ROW, BenchPlace
from trainer.analysis.bench.torchrec_step import step_arrays, step_seconds
from trainer.data.criteo import DENSE_NAMES, SPARSE_NAMES
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.text_files import TextBlock

OURS = "Chorus (polars, bad lines looked for)"
TORCHREC = "torchrec tsv_to_npys"
_NAMES = ("label", *DENSE_NAMES, *SPARSE_NAMES)
_REFERENCE_SHARE = 4  # the slow one gets a quarter of the rows


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """The arrays that every parser ends in; 0 where missing."""

    labels: NDArray[np.int32]  # [N]
    numbers: NDArray[np.int32]  # [N, 13]
    values: NDArray[np.uint32]  # [26, N]
    missing: NDArray[np.bool_]  # [26, N]


def measure(place: BenchPlace, *, rows: int, repeats: int) -> Findings:
    """Makes a log and compares.

    Raises:
        ChorusError: two parsers do not come to the same arrays.
    """
    place.need(2 * rows * TEXT_BYTES_PER_ROW)
    log = place.log(rows=rows)
    head = place.head(log, rows=max(1, rows // _REFERENCE_SHARE))
    place.say(f"parsing {log.num_bytes / 1e6:,.0f} MB on one core, {repeats} rounds")
    times: dict[str, list[float]] = in_one_process(race, log.files[0], head, place.folder, repeats, one_core=True)
    findings = Findings()
    head_bytes = Path(head).stat().st_size
    rates = {
        name: [(head_bytes if name == TORCHREC else log.num_bytes) / 1e6 / seconds for seconds in of_name]
        for name, of_name in times.items()
    }
    for name, of_name in sorted(rates.items(), key=lambda pair: -float(np.median(pair[1]))):
        times_reference = float(np.median(of_name) / np.median(rates[TORCHREC]))
        note = f"{times_reference:.1f} x torchrec"
        if name == TORCHREC:
            note = f"writes files too; the first {head_bytes / 1e6:,.0f} MB"
        findings.add(name, of_name, "MB/s", note=note)
    findings.facts = {"rows": log.num_rows, "text_bytes": log.num_bytes, "reference_text_bytes": head_bytes}
    findings.remarks.append("all came to the same arrays; text in memory or in the system's cache")
    if "duckdb" not in rates:
        findings.remarks.append("duckdb was left out: it is not installed (pip install duckdb)")
    return findings


def race(path: str, head: str, folder: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of each parser in each round; all results are compared with ours.

    Args:
        path: The log.
        head: Its first rows, for torchrec.
        folder: Where torchrec writes.
        repeats: Rounds, behind one that is not counted.

    Raises:
        ChorusError: other arrays than ours.
    """
    data = Path(path).read_bytes()
    wanted = of_chorus(data)
    runners: dict[str, Callable[[], Parsed]] = {
        OURS: lambda: of_chorus(data),
        "polars": lambda: of_polars(data),
        "pyarrow.csv": lambda: of_pyarrow(data),
    }
    if importlib.util.find_spec("duckdb") is not None:
        runners["duckdb"] = lambda: of_duckdb(path)
    times: dict[str, list[float]] = {name: [] for name in (*runners, TORCHREC)}
    for turn in range(repeats + 1):
        for name, runner in runners.items():
            started = time.perf_counter()
            found = runner()
            seconds = time.perf_counter() - started
            if turn:
                times[name].append(seconds)
            else:
                check_same(found, wanted, name=name)
            del found
        if turn:
            times[TORCHREC].append(step_seconds(head, folder))
    check_torchrec(step_arrays(folder), wanted)
    return times


def of_chorus(data: bytes) -> Parsed:
    """By the project's parser."""
    block = TextBlock(data=data, num_lines=data.count(b"\n"))
    rows = CriteoFormat(numerics="raw").parse(block)
    assert rows.labels is not None
    dense: Any = rows.dense
    values: Any = rows.values
    return Parsed(labels=rows.labels, numbers=dense, values=values, missing=rows.missing)


def of_polars(data: bytes) -> Parsed:
    """By polars with its types told, without a look at what is no number."""
    types: dict[str, Any] = dict.fromkeys(("label", *DENSE_NAMES), pl.Int32) | dict.fromkeys(SPARSE_NAMES, pl.String)
    frame = pl.read_csv(data, separator="\t", has_header=False, quote_char=None, schema=types)
    sparse = frame.select(pl.col(SPARSE_NAMES).str.to_integer(base=16, dtype=pl.UInt32))
    return _parsed(
        labels=frame["label"].to_numpy(),
        numbers=[column.fill_null(0).to_numpy() for column in frame.select(DENSE_NAMES)],
        values=[column.fill_null(0).to_numpy() for column in sparse],
        missing=[column.is_null().to_numpy() for column in sparse],
    )


def of_pyarrow(data: bytes) -> Parsed:
    """By pyarrow.csv on one thread; hex digits become numbers by way of 0x in front of them."""
    table = pyarrow.csv.read_csv(
        io.BytesIO(data),
        read_options=pyarrow.csv.ReadOptions(use_threads=False, column_names=list(_NAMES), block_size=8 << 20),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(("label", *DENSE_NAMES), pa.int32()) | dict.fromkeys(SPARSE_NAMES, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    sparse = [pc.cast(pc.binary_join_element_wise("0x", table[name], ""), pa.uint32()) for name in SPARSE_NAMES]
    return _parsed(
        labels=table["label"].to_numpy(),
        numbers=[table[name].fill_null(0).to_numpy() for name in DENSE_NAMES],
        values=[column.fill_null(0).to_numpy() for column in sparse],
        missing=[column.is_null().to_numpy() for column in sparse],
    )


def of_duckdb(path: str) -> Parsed:
    """By duckdb on one thread; it reads files alone."""
    duckdb = importlib.import_module("duckdb")
    columns = dict.fromkeys(("label", *DENSE_NAMES), "INTEGER") | dict.fromkeys(SPARSE_NAMES, "VARCHAR")
    hexes = ", ".join(f"('0x' || {name})::UINTEGER AS {name}" for name in SPARSE_NAMES)
    query = (
        f"SELECT label, {', '.join(DENSE_NAMES)}, {hexes} FROM read_csv($path, delim='\t', header=false, quote='',"
        f" escape='', auto_detect=false, columns={columns!r})"
    )
    with duckdb.connect(config={"threads": 1, "preserve_insertion_order": True}) as connection:
        found = connection.execute(query, {"path": path}).fetchnumpy()
    sparse = [np.ma.asarray(found[name]) for name in SPARSE_NAMES]
    return _parsed(
        labels=np.asarray(found["label"]),
        numbers=[np.ma.filled(found[name], 0) for name in DENSE_NAMES],
        values=[np.ma.filled(column, 0) for column in sparse],
        missing=[np.ma.getmaskarray(column) for column in sparse],
    )


def check_same(found: Parsed, wanted: Parsed, *, name: str) -> None:
    """Compares every array.

    Raises:
        ChorusError: one differs.
    """
    for key, array in vars(wanted).items():
        other = getattr(found, key)
        if other.dtype != array.dtype or not np.array_equal(other, array):
            raise ChorusError(f"{name}: its {key} are not those of Chorus; the parsers cannot be compared")


def check_torchrec(arrays: tuple[NDArray, NDArray, NDArray], wanted: Parsed) -> None:
    """Compares what torchrec has written of the first rows; it has transformed the numbers.

    Raises:
        ChorusError: one differs.
    """
    dense, sparse, labels = arrays
    numbers = wanted.numbers[: len(labels)]
    same = {
        "labels": np.array_equal(labels[:, 0], wanted.labels[: len(labels)]),
        "values": np.array_equal(sparse, wanted.values[:, : len(labels)].T),
        "numbers": np.array_equal(dense, np.log(numbers - (numbers.min() - 2), dtype=np.float32)),
    }
    different = [key for key, is_same in same.items() if not is_same]
    if different:
        raise ChorusError(f"{TORCHREC}: its {different[0]} are not those of Chorus; the parsers cannot be compared")


def _parsed(
    *, labels: NDArray, numbers: Sequence[NDArray], values: Sequence[NDArray], missing: Sequence[NDArray]
) -> Parsed:
    return Parsed(
        labels=labels.astype(np.int32),
        numbers=np.ascontiguousarray(np.stack(numbers).T),
        values=np.stack(values),
        missing=np.stack(missing),
    )
