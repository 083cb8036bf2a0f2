"""PreparationSettings: what is prepared and how; checked when made."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.errors import DataError
from trainer import storage
from trainer.data.manifest import FIRST_VALUE_ID, MANIFEST_NAME, DataManifest
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.parsed import InputFormat
from trainer.data.preparing.prepared_folder import difference
from trainer.data.preparing.splits import Split

# A worker's interpreter with its libraries, a block of text and what is parsed of it; measured, rounded up.
WORKER_BYTES = 450 << 20
DEFAULT_MAX_BAD_FRACTION = 1e-4
_GIB = 1 << 30
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_memory_gb() -> float:
    """Half of the memory that this machine, or the container, has; at most 8 GiB."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_LIMITS:
        if storage.is_file(path) and (limit := storage.read_text(path).strip()).isdecimal():
            whole = min(whole, int(limit))
    return min(8.0, round(whole / 2 / _GIB, 1))


@dataclass(frozen=True, kw_only=True)
class VocabularyChoice:
    """Where ids come from.

    Args:
        kind: dictionary: counted in some parts; hash; saved: as in another prepared folder.
        rule: How counted values get ids.
        parts: The counted parts; None: all but the last, or the only one.
        hash_rows: Rows of every table, for hash.
        saved: The other folder, for saved.
    """

    kind: Literal["dictionary", "hash", "saved"] = "dictionary"
    rule: IdRule = IdRule()
    parts: tuple[str, ...] | None = None
    hash_rows: int = 0
    saved: str = ""

    def __post_init__(self) -> None:
        if self.rule.min_count < 1:
            raise DataError(f"min_count: {self.rule.min_count} must be at least 1")
        if self.rule.max_rows is not None and self.rule.max_rows < FIRST_VALUE_ID + 2:
            raise DataError(f"max_rows: {self.rule.max_rows} must be at least {FIRST_VALUE_ID + 2}")
        if self.kind == "hash" and not FIRST_VALUE_ID < self.hash_rows < 2**31:
            raise DataError(f"hash_rows: {self.hash_rows} must be from {FIRST_VALUE_ID + 1} to 2,147,483,647")

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """The counted parts among these.

        Raises:
            DataError: one of them is not there.
        """
        wanted = self.parts
        if wanted is None:
            wanted = tuple(names) if self.rule.order == "first_row" else (tuple(names[:-1]) or tuple(names))
        unknown = [name for name in wanted if name not in names]
        if unknown or not wanted:
            shown = repr(unknown[0]) if unknown else "nothing"
            raise DataError(f"vocabulary_from: {shown} is not a part; choose from {', '.join(names)}")
        return tuple(name for name in names if name in wanted)


@dataclass(frozen=True, kw_only=True)
class PreparationSettings:
    """What is prepared and how.

    Args:
        inputs: The files, in time order.
        output: The folder to write; new, empty or unfinished.
        input_format: How the files are read.
        split: Which row goes into which part.
        vocabulary: Where ids come from.
        bag_sizes: For each categorical feature the size of its bag, which follows from its id; 1: no bag.
        materialise_bags: Whether these bags are written out rather than made while loading.
        mlperf_float32: Whether ids of all files but the last pass through float32, as in MLPerf's shuffle.
        keep_rows: Whether parsed rows wait in scratch files for their ids; else the text is parsed twice.
        max_bad_fraction: More bad lines than this share of all end the preparation.
        allow_damaged: Whether a gzip file that is cut off is taken as far as it goes.
        memory_gb: What all processes together may hold, without the machine's file cache.
        num_workers: Processes; memory_gb may allow fewer.
        shard: (i, n): this process does the i-th share of the files, n - 1 others the rest, on one shared folder.
    """

    inputs: tuple[str, ...]
    output: str
    input_format: InputFormat
    split: Split
    vocabulary: VocabularyChoice = VocabularyChoice()
    bag_sizes: tuple[int, ...] = ()
    materialise_bags: bool = False
    mlperf_float32: bool = False
    keep_rows: bool = True
    max_bad_fraction: float = DEFAULT_MAX_BAD_FRACTION
    allow_damaged: bool = False
    memory_gb: float = field(default_factory=default_memory_gb)
    num_workers: int = 1
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError("inputs: none given; name at least one file")
        doubled = sorted({path for path in self.inputs if self.inputs.count(path) > 1})
        if doubled:
            raise DataError(f"inputs: {doubled[0]} is named twice; a row must not be in two places")
        if not self.output:
            raise DataError("output: is empty; name the folder to write")
        if storage.is_remote(self.output):
            raise DataError(
                f"output: {self.output}: rows are written in place, so it must be a local or mounted folder"
            )
        if not 0 <= self.max_bad_fraction <= 1:
            raise DataError(f"max_bad_fraction: {self.max_bad_fraction} must be from 0 to 1")
        if self.num_workers < 1:
            raise DataError(f"workers: {self.num_workers} must be at least 1")
        if not math.isfinite(self.memory_gb) or self.memory_gb * _GIB < 2 * WORKER_BYTES:  # nan included
            raise DataError(f"memory_gb: {self.memory_gb:g} is too little; give at least {2 * WORKER_BYTES / _GIB:.1f}")
        if not 0 <= self.shard[0] < self.shard[1]:
            raise DataError(f"shard: {self.shard[0]}/{self.shard[1]} is not one of 0/N to N-1/N")
        layout = self.input_format.layout
        if not self.keep_rows and layout.bags:
            raise DataError("reparse: is not for tables with multi-valued features; leave it out")
        if self.vocabulary.kind == "dictionary":
            counted = self.vocabulary.of(self.split.names)
            if not (self.keep_rows or self.split.known_by_file or len(counted) == len(self.split.names)):
                raise DataError(
                    "reparse: which rows are counted must be known while they are read; leave it out, give no split, or"
                    f" name all parts in vocabulary_from: {' '.join(self.split.names)}"
                )
        if self.vocabulary.kind == "saved":
            self._check_saved()

    def _check_saved(self) -> None:
        if storage.same_place(self.vocabulary.saved, self.output):
            raise DataError(
                f"dictionary: {self.vocabulary.saved} is the output folder too; write new days to another one"
            )
        saved = saved_manifest(self.vocabulary.saved, key="dictionary")
        kept, wanted = (_what_ids_rest_on(found) for found in (saved.provenance["input"], self.input_format.as_dict()))
        if kept != wanted:
            key, before, now = difference("input", kept, wanted)
            raise DataError(
                f"dictionary: {self.vocabulary.saved} was prepared with {key} {before!r}, not {now!r}; prepare new rows"
                " as the old ones were"
            )

    @property
    def counted(self) -> tuple[str, ...]:
        """The parts whose values are counted."""
        return self.vocabulary.of(self.split.names) if self.vocabulary.kind == "dictionary" else ()

    def provenance(self) -> dict[str, Any]:
        """All that decides what comes out, as a manifest keeps it."""
        choice = self.vocabulary
        if choice.kind == "dictionary":
            vocabulary: dict[str, Any] = {
                "kind": "dictionary",
                "order": choice.rule.order,
                "min_count": choice.rule.min_count,
                "max_rows": choice.rule.max_rows,
                "from": list(self.counted),
            }
        elif choice.kind == "hash":
            vocabulary = {"kind": "hash", "rows": choice.hash_rows}
        else:
            saved = DataManifest.read(choice.saved)
            vocabulary = {**saved.provenance["vocabulary"], "saved_sha256": saved.dictionary_sha256}
        return {
            "input": self.input_format.as_dict(),
            "split": self.split.as_dict(),
            "vocabulary": vocabulary,
            "bag_sizes": list(self.bag_sizes),
            "materialise_bags": self.materialise_bags,
            "mlperf_float32": self.mlperf_float32,
        }

    @property
    def workers_in_memory(self) -> int:
        """Processes that the memory allows."""
        room = int(self.memory_gb * _GIB) // WORKER_BYTES - 1  # this process
        return max(1, min(self.num_workers, room))

    @property
    def merge_bytes(self) -> int:
        """What one process may hold to merge counts, beside itself."""
        workers = self.workers_in_memory
        spare = int(self.memory_gb * _GIB) - WORKER_BYTES // 2 - workers * (WORKER_BYTES // 2)
        return max(32 << 20, spare // workers)


def saved_manifest(root: str, *, key: str) -> DataManifest:
    """The manifest of a folder whose ids new rows are to get.

    Args:
        root: The folder.
        key: Where it is named, for messages.

    Raises:
        DataError: not finished, or its ids cannot be given to values that come later.
    """
    if not storage.is_file(storage.join(root, MANIFEST_NAME)):
        raise DataError(f"{key}: {root!r} is not a finished prepared folder; name one")
    saved = DataManifest.read(root)
    if "input" not in saved.provenance:
        raise DataError(f"{key}: {root} was adopted: its values are not known; prepare them")
    if saved.provenance["vocabulary"].get("order") == "first_row":
        raise DataError(
            f"{key}: {root} was prepared with --mlperf, where every day is in the dictionary from the beginning;"
            " prepare its days and the new ones together"
        )
    return saved


def _what_ids_rest_on(settings: Mapping[str, Any]) -> dict[str, Any]:
    """New rows may have no labels and no weights, other parts, and other columns that pass through."""
    found = {key: value for key, value in settings.items() if key != "labels"}
    if "schema" in found:
        schema = found["schema"]
        found["order"] = found["order"][len((schema["split"] or {"parts": ()})["parts"]) :]  # the parts come first
        found["schema"] = {key: value for key, value in schema.items() if key not in ("weight", "split", "keep")}
    return found
