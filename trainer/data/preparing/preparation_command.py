"""What the preparing programs share: flags, input files, progress and the summary at the end."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal

from configs.errors import EXIT_DONE, EXIT_INTERRUPTED, ChorusError, DataError
from trainer import storage
from trainer.data.manifest import DataManifest
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.input_files import input_files
from trainer.data.preparing.preparation import already_prepared, prepare
from trainer.data.preparing.preparation_settings import (
    DEFAULT_MAX_BAD_FRACTION,
    PreparationSettings,
    VocabularyChoice,
    default_memory_gb,
)
from trainer.data.preparing.prepared_folder import QUARANTINE_NAME
from trainer.data.preparing.splits import Split
from trainer.data.preparing.stages import PreparationProgress
from trainer.worker_processes import num_cores

_QUIET_SECONDS = 2.0
_NUM_LARGEST = 5
_DEFAULT_HASH_ROWS = 1_000_000


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every preparing program has."""
    files = parser.add_argument_group("files")
    add = files.add_argument
    add("--input", nargs="+", required=True, metavar="FILE", help="files in time order, plain or .gz, or a 'pattern'")
    add("--output", required=True, metavar="DIR", help="folder to write; done once its manifest.json is there")
    add("--overwrite", action="store_true", help="begin anew where DIR holds data prepared otherwise")
    parts = parser.add_argument_group("parts (default: one for each file, by its name)")
    add = parts.add_argument
    add("--split", nargs="+", metavar="NAME=SHARE", help="cut all rows in time order into these parts")
    add("--random-split", nargs="+", metavar="NAME=SHARE", help="deal rows to these parts by a hash of their number")
    add("--seed", type=int, metavar="N", help="of --random-split (default: 1)")
    vocabulary = parser.add_argument_group("ids")
    add = vocabulary.add_argument
    add(
        "--vocabulary",
        choices=("dictionary", "hash"),
        default="dictionary",
        help="dictionary: an id for each value, by frequency (the default); hash: no counting, values may share ids",
    )
    add(
        "--vocabulary-from",
        nargs="+",
        metavar="PART",
        help="parts whose values get ids, so name none that you test on; default: all parts but the last",
    )
    add("--min-count", type=int, metavar="N", help="values seen less often there are rare ones, id 1 (default: 2)")
    add("--max-rows", type=int, metavar="N", help="rows of a table at most; the rarest values then share ids by hash")
    add(
        "--hash-rows",
        type=int,
        metavar="N",
        help=f"rows of every table with --vocabulary hash (default: {_DEFAULT_HASH_ROWS:,})",
    )
    add("--dictionary", metavar="DIR", help="give the ids that another prepared folder gave: for new days")
    faults = parser.add_argument_group("bad lines (they are put into DIR/quarantine.jsonl)")
    add = faults.add_argument
    add(
        "--max-bad-fraction",
        type=float,
        default=DEFAULT_MAX_BAD_FRACTION,
        metavar="X",
        help=f"fail where more than this share of all lines is bad (default: {DEFAULT_MAX_BAD_FRACTION:g})",
    )
    add("--allow-damaged", action="store_true", help="take a gzip file that is cut off as far as it goes")
    machine = parser.add_argument_group("machine (these do not change what comes out)")
    add = machine.add_argument
    add("--workers", type=int, default=num_cores(), metavar="N", help="processes (default: one for each core)")
    add(
        "--memory-gb",
        type=float,
        default=default_memory_gb(),
        metavar="X",
        help="what all processes may hold, beside the file cache; more goes to disk (default: %(default)s)",
    )
    add("--shard", default="0/1", metavar="I/N", help="do the I-th share of the files, with N processes on one folder")


def settings_of_flags(options: argparse.Namespace, *, parts: Sequence[str] = ()) -> dict[str, object]:
    """The settings that the common flags say, for PreparationSettings; `parts`: those that a column names, if one does.

    Raises:
        DataError: a flag's value is of no use.
    """
    inputs = input_files(options.input, key="--input")
    return {
        "inputs": tuple(inputs),
        "output": options.output,
        "split": split_of_flags(options, inputs, parts=parts),
        "vocabulary": _vocabulary(options),
        "max_bad_fraction": options.max_bad_fraction,
        "allow_damaged": options.allow_damaged,
        "memory_gb": options.memory_gb,
        "num_workers": options.workers,
        "shard": _shard(options.shard),
    }


def run_program(make_settings: Callable[[], PreparationSettings], *, output: str, overwrite: bool) -> int:
    """Prepares and says what came out; returns the exit code."""
    try:
        settings = make_settings()
        manifest = None if overwrite else already_prepared(settings)
        if manifest is not None:
            print(f"{output}: already prepared from these files with these settings; nothing to do")
        else:
            manifest = prepare(settings, overwrite=overwrite, on_progress=ProgressLine())
        print(summary(manifest, output))
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nstopped; {output} is unfinished, the same command goes on from what is done", file=sys.stderr)
        return EXIT_INTERRUPTED


def split_of_flags(options: argparse.Namespace, inputs: Sequence[str], *, parts: Sequence[str] = ()) -> Split:
    """The split that --split or --random-split say; else that of a column with these parts, or a part for each file.

    Raises:
        DataError: both are given, or one is not made of names and shares.
    """
    if options.split and options.random_split:
        raise DataError("--split: give it or --random-split, not both")
    pairs = options.split or options.random_split
    if parts:
        if pairs:
            raise DataError("--split: a column says it already; leave out --split and --random-split")
        return Split(kind="column", names=tuple(parts))
    if not pairs:
        return Split.by_file(inputs)
    shares = _shares(pairs, flag="--split" if options.split else "--random-split")
    kind: Literal["time", "random"] = "time" if options.split else "random"
    if options.seed is not None and kind == "time":
        raise DataError("--seed: has a meaning with --random-split only; leave it out")
    seed = 1 if options.seed is None else options.seed
    return Split(kind=kind, names=tuple(shares), shares=tuple(shares.values()), seed=seed)


def _vocabulary(options: argparse.Namespace) -> VocabularyChoice:
    counting = ("vocabulary_from", "min_count", "max_rows")
    given = ["--" + name.replace("_", "-") for name in counting if getattr(options, name) is not None]
    hash_rows = options.hash_rows
    if options.dictionary is not None:
        given += ["--vocabulary hash"] * (options.vocabulary == "hash") + ["--hash-rows"] * (hash_rows is not None)
        if given:
            raise DataError(
                f"--dictionary: ids come from {options.dictionary}, so {given[0]} has no meaning; leave it out"
            )
        return VocabularyChoice(kind="saved", saved=options.dictionary)
    if options.vocabulary == "hash":
        if given:
            raise DataError(f"--vocabulary: hash counts nothing, so {given[0]} has no meaning; leave it out")
        return VocabularyChoice(kind="hash", hash_rows=_DEFAULT_HASH_ROWS if hash_rows is None else hash_rows)
    if hash_rows is not None:
        raise DataError("--hash-rows: has a meaning with --vocabulary hash only; leave it out")
    return VocabularyChoice(
        rule=IdRule(min_count=2 if options.min_count is None else options.min_count, max_rows=options.max_rows),
        parts=None if options.vocabulary_from is None else tuple(options.vocabulary_from),
    )


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and text.isascii() and index.isdecimal() and count.isdecimal()):
        raise DataError(f"--shard: {text!r} is not I/N; write 0/24 to 23/24")
    return int(index), int(count)


def _shares(pairs: Sequence[str], *, flag: str) -> dict[str, str]:
    shares: dict[str, str] = {}
    for pair in pairs:
        name, sign, share = pair.partition("=")
        if not sign or name in shares or not re.fullmatch(r"\d*\.?\d+|\d+\.", share):
            raise DataError(
                f"{flag}: {pair!r} is not NAME=SHARE with a name of its own; write {flag} train=0.9 valid=0.1"
            )
        shares[name] = share
    return shares


class ProgressLine:
    """Tells stderr how far the stages are: one line that is rewritten on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._last = time.monotonic()
        self._seconds_between = 0.5 if self._is_terminal else 10.0
        self._has_shown = False

    def __call__(self, now: PreparationProgress) -> None:
        """A stage has come so far."""
        wait = self._seconds_between if self._has_shown else _QUIET_SECONDS
        if time.monotonic() - self._last < wait:
            return
        self._last, self._has_shown = time.monotonic(), True
        line = now.sentence()
        print(f"\r\x1b[K{line}" if self._is_terminal else line, end="" if self._is_terminal else "\n", file=sys.stderr)
        sys.stderr.flush()


def summary(manifest: DataManifest, output: str) -> str:
    """The parts, the largest tables, and what became of the lines."""
    width = max([len("part"), *(len(part.name) for part in manifest.parts)])
    lines = [f"{'part':<{width}}  {'rows':>15}  click rate"]
    for part in manifest.parts:
        rate = "no labels" if part.label_sum is None else f"{part.label_sum / max(part.num_rows, 1):.4f}"
        lines.append(f"{part.name:<{width}}  {part.num_rows:>15,}  {rate:>10}")
    tables = sorted(manifest.id_features, key=lambda feature: -(feature.rows or 0))
    largest = ", ".join(f"{feature.name} {feature.rows:,}" for feature in tables[:_NUM_LARGEST])
    total = sum(feature.rows or 0 for feature in tables)
    lines.append(f"table rows: {total:,} in {len(tables)} tables; largest: {largest}")
    if manifest.kept_features:
        kept = ", ".join(f"{feature.name} {_dtype_in_words(feature.dtype)}" for feature in manifest.kept_features)
        lines.append(f"kept for predictions: {kept}")
    inputs = manifest.provenance["inputs"]
    counts = {key: sum(entry[key] for entry in inputs) for key in ("num_lines", "num_rows", "num_quarantined")}
    bad = counts["num_quarantined"]
    aside = f"{bad:,} bad ones in {storage.join(output, QUARANTINE_NAME)}" if bad else "0 bad ones"
    lines.append(f"lines: {counts['num_lines']:,} read = {counts['num_rows']:,} rows + {aside}")
    return "\n".join(lines)


def _dtype_in_words(dtype: str | None) -> str:
    """Of a kept column."""
    return f"(text, {dtype[1:]} bytes)" if dtype and dtype.startswith("S") else "(integer)"
