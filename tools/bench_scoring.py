"""Measures batch scoring on this machine: what members, the driver, coarser forms and exact figures cost.

Sections (default: all of them, one after the other):

  members  K = 1, 2, 4, 8 members on shared tables in one job, beside S + K D and beside K jobs, on one core;
           S: a pass with the members taken out, D: a member alone on embeddings in memory; start-up apart
  bound    the driver's rows/s beside the forward pass of the same modules on batches in memory
  memory   peak memory of the program over one day and over four
  forms    members in bf16, copies as one, tables in fp16 and int8: rows/s, and figures beside float32's
  auc      exact and streaming AUC of --auc-rows rows: time and memory

Rows are made in the Criteo layout (13 numbers, 26 ids) and prepared once; figures are medians of --repeats rounds in
which the things compared take turns, and ratios are taken within a round. Let the machine do nothing else meanwhile.
--output keeps all figures as JSON, and what other sections have put there before; --markdown their lines. Examples:

  python tools/bench_scoring.py --folder bench --output scoring.json --markdown scoring.md
  python tools/bench_scoring.py members --folder bench --rows 262144 --repeats 5 --keep
  python tools/bench_scoring.py forms --folder bench --checkpoint runs/criteo --data.root=data/criteo
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from trainer import storage
from trainer.analysis.bench import auc_speed
from trainer.analysis.bench.figures import Findings, machine, markdown, table
from trainer.analysis.bench.place import BenchPlace
from trainer.analysis.bench.scoring_forms import measure_forms
from trainer.analysis.bench.scoring_place import DAYS, ScoringPlace, ScoringSize
from trainer.analysis.bench.scoring_speed import SHAPES, Rounds, measure_bound, measure_members, measure_memory
from trainer.checkpoints.stored_checkpoint import newest_checkpoint
from trainer.clock import clock
from trainer.failures import leave

SECTIONS = ("members", "bound", "memory", "forms", "auc")
_LEAST_ROWS = 1_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures each section, prints it and keeps it; returns the exit code."""
    options, words = _parser().parse_known_args(arguments)
    try:
        _check(options, words)
        place = BenchPlace(os.path.join(options.folder, "bench_scoring"), say=_say)
        try:
            for section in options.sections or SECTIONS:
                lines, marked, body = _measure(section, options, words, place=place)
                print("\n".join([section, *lines, ""]), flush=True)
                _keep(options, section, marked=marked, body=body)
        finally:
            place.close(keep=options.keep)
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {options.folder}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


_STARTED = time.monotonic()


def _say(text: str) -> None:
    print(f"{clock(time.monotonic() - _STARTED)}: {text}", file=sys.stderr, flush=True)


def _measure(
    section: str, options: argparse.Namespace, words: Sequence[str], *, place: BenchPlace
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Lines for people, lines of Markdown, and all figures."""
    if section == "auc":
        _say(f"AUC of {options.auc_rows:,} rows, {options.auc_columns} columns")
        folder = place.path("auc") if options.auc_files else None
        found = auc_speed.measure(num_rows=options.auc_rows, num_columns=options.auc_columns, folder=folder, say=_say)
        lines = found.lines()
        return [f"  {line}" for line in lines], [f"- {line}" for line in lines], dataclasses.asdict(found)
    findings = _findings(section, options, words, place=place)
    return table(findings).split("\n"), markdown(findings), findings.as_dict()


def _findings(section: str, options: argparse.Namespace, words: Sequence[str], *, place: BenchPlace) -> Findings:
    size = ScoringSize(rows=options.rows, table_rows=options.table_rows, dim=options.dim, batch_size=options.batch_size)
    scoring, rounds = ScoringPlace(place, size), _rounds(options)
    shapes = SHAPES if options.shapes is None else [SHAPES[number - 1] for number in options.shapes]
    sections: dict[str, Callable[[], Findings]] = {
        "members": lambda: measure_members(scoring, shapes=shapes, rounds=rounds),
        "bound": lambda: measure_bound(scoring, shapes=shapes, rounds=rounds),
        "memory": lambda: measure_memory(scoring, shape=shapes[0]),
        "forms": lambda: _forms(options, words, scoring=scoring),
    }
    return sections[section]()


def _rounds(options: argparse.Namespace) -> Rounds:
    return Rounds(repeats=options.repeats, clock=options.clock)


def _forms(options: argparse.Namespace, words: Sequence[str], *, scoring: ScoringPlace) -> Findings:
    if options.checkpoint:
        checkpoint = newest_checkpoint(options.checkpoint)
        return measure_forms(scoring.place, checkpoint=checkpoint, words=words, rounds=_rounds(options))
    steps = max(1, options.rows // options.batch_size)  # a pass over day_0
    checkpoint = scoring.trained((200, 80), members=4, steps=steps)
    data = [f"--data.root={scoring.data}", f'--score.parts=["{DAYS[1]}"]']
    return measure_forms(scoring.place, checkpoint=checkpoint, words=data, rounds=_rounds(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/bench_scoring.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    add("--folder", required=True, metavar="DIR", help="where rows, runs and predictions may lie for a while")
    add("--rows", type=int, default=524_288, metavar="N", help="of each of four days (default: 524288)")
    add("--table-rows", type=int, default=200_000, metavar="N", help="of each of 26 tables (default: 200000)")
    add("--dim", type=int, default=16, metavar="N", help="columns of an embedding (default: 16)")
    add("--batch-size", type=int, default=4_096, metavar="N", help="rows of a step (default: 4096)")
    add("--repeats", type=int, default=3, metavar="N", help="rounds of which the median is taken (default: 3)")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of the threads, for a machine that is busy")
    shapes = "; ".join(f"{number} {shape.name}" for number, shape in enumerate(SHAPES, start=1))
    add("--shapes", type=int, nargs="+", metavar="N", help=f"members and bound: of {shapes} (default: all)")
    add(
        "--checkpoint",
        metavar="DIR",
        help="forms: score with this one, of its own data; further words are its keys, as --score.parts='[\"valid\"]'"
        " (default: members trained on the rows made)",
    )
    add("--auc-rows", type=int, default=auc_speed.CRITEO_1TB_TEST_ROWS, metavar="N", help="(default: %(default)s)")
    add("--auc-columns", type=int, default=9, metavar="N", help="members and merged (default: 9)")
    add("--auc-files", action="store_true", help="auc: read the columns from Parquet files")
    add("--output", metavar="FILE.json", help="keep the figures there")
    add("--markdown", metavar="FILE.md", help="add them there as lines of a table")
    add("--keep", action="store_true", help="leave rows and runs in DIR, for the next time")
    return parser


def _check(options: argparse.Namespace, words: Sequence[str]) -> None:
    unknown = [section for section in options.sections if section not in SECTIONS]
    if unknown:
        raise ConfigError(f"SECTION: {unknown[0]!r} is none of {', '.join(SECTIONS)}")
    if words and not options.checkpoint:
        raise ConfigError(f"{words[0]}: no such flag; keys of a run are for forms with --checkpoint")
    for key in ("rows", "auc_rows"):
        if getattr(options, key) < _LEAST_ROWS:
            raise ConfigError(f"--{key.replace('_', '-')}: {getattr(options, key)} must be at least {_LEAST_ROWS:,}")
    for key in ("table_rows", "dim", "batch_size", "repeats", "auc_columns"):
        if getattr(options, key) < 1:
            raise ConfigError(f"--{key.replace('_', '-')}: {getattr(options, key)} must be above zero")
    if options.batch_size > options.rows:
        raise ConfigError(f"--batch-size: {options.batch_size} is more than --rows, {options.rows}")
    if options.shapes and not set(options.shapes) <= set(range(1, len(SHAPES) + 1)):
        raise ConfigError(f"--shapes: {options.shapes} must be numbers from 1 to {len(SHAPES)}")


def _keep(options: argparse.Namespace, section: str, *, marked: Sequence[str], body: dict[str, Any]) -> None:
    if options.output:
        kept = storage.read_json(options.output) if storage.is_file(options.output) else {}
        kept[section] = {"machine": machine(), **body}
        storage.write_json(options.output, kept)
    if options.markdown:
        before = storage.read_text(options.markdown) if storage.is_file(options.markdown) else ""
        storage.write_text(options.markdown, before + "\n".join([f"### {section}", "", *marked, "", ""]))


if __name__ == "__main__":
    leave(main())
