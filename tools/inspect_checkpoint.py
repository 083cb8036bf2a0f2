"""Looks into checkpoints: shows, compares, verifies, exports members, averages.

DIR is a checkpoint's folder (runs/NAME/TIME/checkpoints/step_...), or a run's folder, which stands for its newest
finished checkpoint; both may be s3://. Nothing is run that a checkpoint holds: JSON, TOML and numbers are read, no
pickle. Examples:

  what is inside: progress, members, tables with norms and untouched rows, optimizer state, plan, sizes
    python tools/inspect_checkpoint.py show runs/demo/20260101-120000

  the same without reading the weights, and as JSON
    python tools/inspect_checkpoint.py show DIR --quick
    python tools/inspect_checkpoint.py show DIR --json

  whether two have the same weights; exit code 0: equal, 1: different
    python tools/inspect_checkpoint.py compare DIR_A DIR_B
    python tools/inspect_checkpoint.py compare DIR_A DIR_B --state --tolerance 1e-6

  whether every file is as it was written, of all checkpoints of a run; exit code 0: whole, 1: damaged or unfinished
    python tools/inspect_checkpoint.py verify RUN_FOLDER

  one member with its tables for use without Chorus's sharding: see trainer/checkpoints/export.py, load_member
    python tools/inspect_checkpoint.py export DIR --member deep --output deep.safetensors

  all members, with the run's merge rule or a fitted one: see trainer/checkpoints/exported_ensemble.py, load_ensemble
    python tools/inspect_checkpoint.py export DIR --all --output exported
    python tools/inspect_checkpoint.py export DIR --all --merge merge.toml --programs --output exported

  the mean of the last five checkpoints of a run, which trainer/score.py scores with
    python tools/inspect_checkpoint.py average --last 5 RUN_FOLDER --rule sma --output averaged
    python tools/inspect_checkpoint.py average DIR_1 DIR_2 DIR_3 --rule ema --decay 0.8 --output averaged

  the same of members with batch norm, whose running statistics are taken anew from rows of data.train
    python tools/inspect_checkpoint.py average --last 5 RUN_FOLDER --batch-norm-rows 200000 --output averaged

Exit code 2: refused, as where DIR is no checkpoint or its manifest is damaged.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, ConfigError
from configs.loader import read_run
from modules import members
from modules.merge import MergeRule
from trainer import storage
from trainer.analysis.checkpoint_report.comparison import compare, keys_to_compare
from trainer.analysis.checkpoint_report.contents import bytes_to_read, contents
from trainer.analysis.checkpoint_report.text import (
    average_text,
    comparison_text,
    contents_text,
    readable,
    verdict_text,
)
from trainer.averaged_weights import averaged
from trainer.batch_norm_statistics import statistics_keys
from trainer.checkpoints.averaging import RULES
from trainer.checkpoints.ensemble_export import EnsembleExport
from trainer.checkpoints.export import MemberExport
from trainer.checkpoints.manifest import RUN_NAME
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint, finished
from trainer.checkpoints.verification import checkpoints_in, refuse_damaged, total_bytes, verify_checkpoint
from trainer.failures import guard, leave
from trainer.merge_files import MergeFile, read_merge_file
from trainer.row_progress import RowProgress


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses and does what the subcommand says; returns the exit code."""
    options = _parser().parse_args(arguments)
    return guard(lambda _: _do(options), [])


def _do(options: argparse.Namespace) -> int:
    try:
        code: int = options.do(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has seen enough, as `| head` has; Python would complain at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def show(options: argparse.Namespace) -> int:
    """Prints what is inside."""
    checkpoint = StoredCheckpoint.open(options.folder)
    progress = RowProgress("reading", bytes_to_read(checkpoint), unit="MiB")
    found = contents(checkpoint, advance=None if options.quick else progress.add)
    print(json.dumps(found, indent=2) if options.json else contents_text(found))
    return EXIT_DONE


def compare_two(options: argparse.Namespace) -> int:
    """Prints how two differ."""
    if not options.tolerance >= 0:
        raise ConfigError(f"--tolerance: {options.tolerance} is not a number from zero up")
    a, b = StoredCheckpoint.open(options.a), StoredCheckpoint.open(options.b)
    keys = keys_to_compare(a, b, with_state=options.state)
    both = [key for key in keys if key in a.index and key in b.index]
    progress = RowProgress("comparing", a.num_bytes(both) + b.num_bytes(both), unit="MiB")
    differences = compare(a, b, keys=keys, advance=progress.add)
    if options.json:
        print(json.dumps([found.as_json() for found in differences], indent=2))
    else:
        print(f"A: {a.folder}\nB: {b.folder}")
        print(comparison_text(differences, tolerance=options.tolerance, all_of_them=options.all))
    return EXIT_DONE if all(found.within(options.tolerance) for found in differences) else EXIT_FAILURE


def verify(options: argparse.Namespace) -> int:
    """Prints a verdict on each checkpoint."""
    folders = checkpoints_in(options.folders)
    progress = RowProgress("verifying", total_bytes(folders), unit="MiB")
    all_whole = True
    for folder in folders:
        verdict = verify_checkpoint(folder, advance=progress.add)
        print(verdict_text(verdict), flush=True)
        all_whole &= verdict.is_whole
    return EXIT_DONE if all_whole else EXIT_FAILURE


def export(options: argparse.Namespace) -> int:
    """Writes a member's file, or all members' folder."""
    if options.all:
        return _export_all(options)
    for flag, given in (("--merge", options.merge), ("--programs", options.programs)):
        if given:
            raise ConfigError(f"{flag}: is for a whole ensemble; give --all, or leave it out")
    exported = MemberExport.of(StoredCheckpoint.open(options.folder), member=options.member)
    _verify_all([exported.source.folder])
    exported.write(options.output, advance=RowProgress("exporting", exported.num_bytes, unit="MiB").add)
    print(f"{options.output}: {options.member} of step {exported.facts.step:,}, {readable(exported.num_bytes)}")
    return EXIT_DONE


def _export_all(options: argparse.Namespace) -> int:
    source = StoredCheckpoint.open(options.folder)
    names = tuple(source.manifest.model["members"])
    _verify_all([source.folder])
    merge = read_merge_file(options.merge) if options.merge else _merge_of_run(source, names)
    exported = EnsembleExport.of(source, merge=merge)
    advance = RowProgress("exporting", exported.num_bytes, unit="MiB").add
    exported.write(options.output, advance=advance, programs=options.programs)
    merged = f"merged by {merge.rule.rule} of {len(merge.rule.members)}"
    print(
        f"{options.output}: {', '.join(names)} of step {source.manifest.step:,}, {merged},"
        f" {readable(exported.num_bytes)}"
    )
    return EXIT_DONE


def _merge_of_run(source: StoredCheckpoint, names: tuple[str, ...]) -> MergeFile:
    path = storage.join(source.folder, RUN_NAME)
    run = read_run(storage.read_text(path), source=path, resolve_arch=members.config_class, arch_kinds=members.kinds())
    return MergeFile(rule=MergeRule.fixed(run.merge.rule, members=names), fitted_on=None)


def average(options: argparse.Namespace) -> int:
    """Writes a mean of checkpoints."""
    folders = options.folders
    if options.last is not None:
        (run, *others) = folders
        found = finished(run)
        if others or options.last < 2 or len(found) < options.last:
            raise ConfigError(
                f"--last {options.last}: give one run's folder with at least that many finished checkpoints, and two or"
                f" more; {run} has {len(found)}"
            )
        folders = found[-options.last :]
    chosen = averaged(
        folders,
        rule=options.rule,
        decay=options.decay,
        output=options.output,
        batch_norm_rows=options.batch_norm_rows,
        data_root=options.data_root,
    )
    print(average_text(chosen, folder=options.output))
    if statistics_keys(chosen) and not options.batch_norm_rows:
        print("batch norm's running statistics are means, too, of no network's; --batch-norm-rows takes them anew")
    return EXIT_DONE


def _verify_all(folders: Sequence[str]) -> None:
    """So that nothing is made of damaged weights."""
    progress = RowProgress("verifying", total_bytes(folders), unit="MiB")
    for folder in folders:
        refuse_damaged(folder, advance=progress.add)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/inspect_checkpoint.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(do=do)
        return added

    one = command("show", show, "what is inside a checkpoint")
    one.add_argument("folder", metavar="DIR", help="the checkpoint, or a run's folder for its newest")
    one.add_argument("--json", action="store_true", help="every figure as JSON")
    one.add_argument(
        "--quick", action="store_true", help="leave out what needs the weights read: norms, untouched rows"
    )

    two = command("compare", compare_two, "how the weights of two checkpoints differ; exit code 0: equal, 1: different")
    two.add_argument("a", metavar="A", help="a checkpoint")
    two.add_argument("b", metavar="B", help="another")
    two.add_argument("--state", action="store_true", help="compare the optimizer state too")
    two.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="values may differ by this much and count as equal for the exit code (default: bit for bit)",
    )
    two.add_argument("--all", action="store_true", help="print a line for equal tensors too")
    two.add_argument("--json", action="store_true", help="every tensor as JSON")

    third = command("verify", verify, "every file's size and hash; exit code 0: all whole, 1: damaged or unfinished")
    third.add_argument("folders", nargs="+", metavar="DIR", help="checkpoints; a run's folder: every one in it")

    fourth = command("export", export, "one member with its tables as safetensors, or all with their merge rule")
    fourth.add_argument("folder", metavar="DIR", help="the checkpoint, or a run's folder for its newest")
    which = fourth.add_mutually_exclusive_group(required=True)
    which.add_argument("--member", metavar="NAME", help="this member; show lists them")
    which.add_argument("--all", action="store_true", help="every member, and how they are merged")
    fourth.add_argument(
        "--output", required=True, metavar="PATH", help="a new file, as deep.safetensors; with --all a new folder"
    )
    fourth.add_argument(
        "--merge",
        metavar="FILE",
        help="with --all: a merge.toml, as tools/merge_predictions.py writes it (default: the run's merge.rule)",
    )
    fourth.add_argument(
        "--programs",
        action="store_true",
        help="with --all: each member as a torch.export program, too (MEMBER.pt2), which runs without this repository",
    )

    fifth = command("average", average, "the mean of checkpoints of one model as a new checkpoint, weights only")
    fifth.add_argument("folders", nargs="+", metavar="DIR", help="two or more checkpoints; with --last a run's folder")
    fifth.add_argument("--last", type=int, metavar="K", help="the newest K finished checkpoints of the run's folder")
    fifth.add_argument(
        "--rule",
        choices=RULES,
        default="sma",
        help="sma: equal shares; ema: each older one counts DECAY times the next; wma: shares rise linearly"
        " (default: %(default)s; formulas and sources: trainer/checkpoints/averaging.py)",
    )
    fifth.add_argument("--decay", type=float, metavar="DECAY", help="of ema, between 0 and 1")
    fifth.add_argument(
        "--batch-norm-rows",
        type=int,
        default=0,
        metavar="N",
        help="batch norm's running statistics anew, by training forwards on N rows of data.train; all tables are then"
        " held in memory (default: they are averaged like weights)",
    )
    fifth.add_argument(
        "--data-root", default="", metavar="DIR", help="where these rows are (default: data.root of the newest run)"
    )
    fifth.add_argument("--output", required=True, metavar="DIR", help="a new folder")
    return parser


if __name__ == "__main__":
    leave(main())
