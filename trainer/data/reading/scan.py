"""The scan of prepared files: every id below its table's rows, every number one that can be; cached while files stay.

Lookup kernels read an id outside its table as row 0 without a word, so nothing is trained or scored before this.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer import storage
from trainer.clock import clock
from trainer.data.manifest import DENSE_FILE, LABEL_FILE, WEIGHT_FILE
from trainer.data.reading.array_files import ArrayFile
from trainer.data.reading.feature_layout import offsets_role, values_role
from trainer.data.reading.source import PreparedSource

CACHE_NAME = "checked.json"
_BLOCK_BYTES = 1 << 20  # looked at at a time: it stays in the cache
_SAY_FIRST_SECONDS = 10.0
_SAY_SECONDS = 5.0
_UNSIGNED = {np.dtype(np.int32): np.uint32, np.dtype(np.float32): np.uint32}
_INFINITE = np.uint32(0x7F800000)  # a float32 of these bits or more, the sign left out, is no finite number


class Ranks(Protocol):
    """What the scan needs of a Runtime."""

    rank: int
    world_size: int

    def together(self, do: Any) -> Any:
        """Runs it on every rank; any rank's error is raised on all."""

    def from_main(self, make: Any) -> Any:
        """What rank 0 makes, on every rank."""

    def say(self, text: str) -> None:
        """Prints on rank 0."""


@dataclass(frozen=True)
class Check:
    """One file's check.

    Attributes:
        file: the file.
        what: what its numbers are.
        names: the features in it, to be named in an error.
        columns: where they lie; the first ones of a stored bag all belong to its feature.
        limits: rows of the features' tables.
        offsets: of a jagged bag's values, to find the row of a value.
    """

    file: ArrayFile
    what: Literal["ids", "dense", "weights", "labels", "offsets"]
    names: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()
    limits: tuple[int, ...] = ()
    offsets: NDArray[np.int64] | None = field(default=None, compare=False)

    def fingerprint(self) -> list[Any]:
        """What a passed check holds for: another size, time, column or table needs another one."""
        return [self.file.num_bytes, self.file.mtime_ns, self.what, list(self.columns), list(self.limits)]

    def run(self, first_row: int, last_row: int) -> Iterator[int]:
        """Looks at rows [first_row, last_row); yields the bytes of each block.

        Raises:
            DataError: names the first bad value.
        """
        step = max(1, _BLOCK_BYTES // self.file.row_bytes)
        for start in range(first_row, last_row, step):
            stop = min(start + step, last_row)
            self.file.fetch(start, stop)
            overlap = self.what == "offsets"  # each is compared with the next
            block = self.file.array[start : min(stop + 1, len(self.file.array)) if overlap else stop]
            if not self._passes(block):
                self._refuse(block, first_row=start)
            yield (stop - start) * self.file.row_bytes

    def _passes(self, block: NDArray) -> bool:
        if self.what == "offsets":
            return bool((block[1:] >= block[:-1]).all())
        if self.what == "weights":
            values = block[:, self.columns[0]]
            return bool((np.isfinite(values) & (values >= 0)).all())
        bits = block.view(_UNSIGNED[block.dtype])
        if self.what == "dense":
            bits = bits & np.uint32(0x7FFFFFFF)
            return bool((_largest(bits)[list(self.columns)] < _INFINITE).all())
        # A negative id is a large number without its sign.
        if self.what == "labels":
            return bool(_largest(bits)[0] <= 1)
        if bits.ndim == 1:
            return bool(bits.max() < self.limits[0])
        return bool((_largest(bits)[list(self.columns)] < np.array(self.limits, dtype=np.uint32)).all())

    def _refuse(self, block: NDArray, *, first_row: int) -> None:
        if self.what == "offsets":
            at = int(np.argmax(block[1:] < block[:-1]))
            problem = f"row {first_row + at}: its ids end at {block[at + 1]}, before they begin at {block[at]}"
            raise DataError(f"{self.file.path}: {problem}; prepare the folder again")
        wide = block.reshape(len(block), -1)
        values = wide[:, :1] if self.what == "labels" else wide[:, list(self.columns)]
        row, place = (int(number) for number in np.argwhere(~self._good(values))[0])
        value, row = values[row, place], first_row + row
        if self.offsets is not None:
            row = int(np.searchsorted(self.offsets, row, side="right")) - 1
        if self.what == "ids":
            problem = (
                f"feature {self.names[place]}, row {row}: id {value} is outside its table of {self.limits[place]} rows"
                f" (ids run from 0 to {self.limits[place] - 1})"
            )
        elif self.what == "dense":
            problem = f"row {row}: dense feature {self.names[place]} is {value}"
        elif self.what == "weights":
            problem = f"row {row}: weight {value:g} is not a finite number of at least 0"
        else:
            problem = f"row {row}: label {value:g} is not 0 or 1"
        raise DataError(f"{self.file.path}: {problem}; prepare the folder again")

    def _good(self, values: NDArray) -> NDArray[np.bool_]:
        if self.what == "ids":
            return (values >= 0) & (values < np.array(self.limits))
        if self.what == "labels":
            return np.isin(values, (0, 1))
        finite: NDArray[np.bool_] = np.isfinite(values)
        return finite if self.what == "dense" else finite & (values >= 0)


def _largest(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The largest number of each column [n, k] -> [k]."""
    fold = 64  # rows side by side: the processor compares long runs at once
    whole = len(bits) // fold * fold
    found = bits[whole:].max(axis=0, initial=0)
    if whole and bits.flags.c_contiguous:
        folded = bits[:whole].reshape(whole // fold, -1).max(axis=0)
        return np.maximum(found, folded.reshape(fold, -1).max(axis=0))
    return bits.max(axis=0, initial=0)


def checks_of(source: PreparedSource) -> list[Check]:
    """All that has to hold of a source's files."""
    layout, checks = source.layout, []
    for arrays in source.arrays:
        if DENSE_FILE in layout.shapes:
            checks.append(Check(arrays[DENSE_FILE], "dense", source.features.dense_names, layout.dense_columns))
        if layout.weight_column is not None:
            checks.append(Check(arrays[WEIGHT_FILE], "weights", columns=(layout.weight_column,)))
        if LABEL_FILE in arrays:
            checks.append(Check(arrays[LABEL_FILE], "labels"))
        for bag in layout.jagged:
            checks.append(Check(arrays[offsets_role(bag.name)], "offsets"))
        offsets_of = {values_role(bag.name): arrays[offsets_role(bag.name)].array for bag in layout.jagged}
        for role, columns in layout.ids.items():
            checks.append(
                Check(
                    arrays[role],
                    "ids",
                    tuple(column.feature for column in columns),
                    tuple(column.column for column in columns),
                    tuple(column.table_rows for column in columns),
                    offsets_of.get(role),
                )
            )
    return checks


def check_values(sources: Sequence[PreparedSource], *, ranks: Ranks) -> None:
    """Refuses a folder that holds a value that cannot be. Each rank looks at its share. All ranks must call this.

    Raises:
        DataError: names the first bad value by feature, row and file.
    """
    checks = {
        (index, check.file.path.removeprefix(source.root)): check
        for index, source in enumerate(sources)
        for check in checks_of(source)
    }
    known = ranks.from_main(lambda: [_read_cache(source.root) for source in sources])
    todo = [(key, check) for key, check in checks.items() if known[key[0]].get(key[1]) != check.fingerprint()]
    if not todo:
        return
    ranks.together(lambda: _scan([check for _, check in todo], ranks=ranks))

    def keep() -> None:
        for index, source in enumerate(sources):
            passed = {name: check.fingerprint() for (of, name), check in todo if of == index}
            _write_cache(source.root, passed)

    ranks.from_main(keep)


def _scan(checks: Sequence[Check], *, ranks: Ranks) -> None:
    """Looks at this rank's share: of each file one slice."""
    shares = []
    for check in checks:
        count = len(check.file.array) - (check.what == "offsets")
        ends = [count * rank // ranks.world_size for rank in (ranks.rank, ranks.rank + 1)]
        shares.append((check, ends[0], ends[1]))
    total = sum((last - first) * check.file.row_bytes for check, first, last in shares)
    started = time.monotonic()
    said, done = started + _SAY_FIRST_SECONDS - _SAY_SECONDS, 0
    for check, first, last in shares:
        for num_bytes in check.run(first, last):
            done += num_bytes
            now = time.monotonic()
            if now - said >= _SAY_SECONDS:
                left = (now - started) / done * (total - done)
                ranks.say(
                    f"checked {done / 1e9:,.1f} of {total / 1e9:,.1f} GB for ids outside their tables"
                    f"  {done / 1e9 / (now - started):.2f} GB/s  ETA {clock(left)}"
                )
                said = now


def _cache_paths(root: str) -> list[str]:
    """Where passed checks may be kept, the best place first."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    whole = root if root.startswith("s3://") else os.path.abspath(root)
    name = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return [storage.join(root, CACHE_NAME), os.path.join(base, "chorus", f"{name}.json")]


def _read_cache(root: str) -> dict[str, Any]:
    """File -> the fingerprint of its last passed check; an unreadable cache only costs another scan."""
    known: dict[str, Any] = {}
    for path in reversed(_cache_paths(root)):
        try:
            found = storage.read_json(path) if storage.is_file(path) else {}
        except (OSError, ValueError):
            continue
        known |= found if isinstance(found, dict) else {}
    return known


def _write_cache(root: str, passed: dict[str, Any]) -> None:
    """Keeps passed checks beside the data, or where that is read-only in the user's cache, or nowhere."""
    text = json.dumps(_read_cache(root) | passed, indent=1) + "\n"
    for path in _cache_paths(root):
        try:
            if not path.startswith("s3://"):
                os.makedirs(os.path.dirname(path), exist_ok=True)
            storage.write_text(path, text)
            return
        except Exception:  # an S3 client has errors of its own
            continue
