"""Merges saved predictions anew: compares merge rules, fits one, applies it, joins jobs. Nothing is scored again.

  compare   all rules on labelled predictions: figures, and differences to the mean logit and to the best member.
            What has a fit is judged on rows that it has not seen (cross-fitting)
  fit       fits one rule on labelled predictions and writes a merge.toml, which score.merge_file takes, too
  apply     writes the predictions with another merged column, figures anew
  join      puts several jobs' predictions of the same rows side by side

Fit on rows that the members were not trained on, and judge on rows that come later.

Example:

  python tools/merge_predictions.py compare predictions/day_22 --calibrations none platt
  python tools/merge_predictions.py fit predictions/day_22 --rule weights --calibration platt --output merge.toml
  python tools/merge_predictions.py compare predictions/day_23 --rules --merge merge.toml
  python tools/merge_predictions.py apply predictions/day_23 --merge merge.toml --output predictions/day_23_weighted
  python tools/merge_predictions.py join old=predictions/a new=predictions/b --output predictions/both
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from modules.merge import MERGED, RULES, MergeRule
from trainer import storage
from trainer.analysis.merge_fitting.calibrating import CALIBRATION_KINDS
from trainer.analysis.merge_fitting.fit_rows import FitRows, merged_logits, read_fit_rows
from trainer.analysis.merge_fitting.greedy_selection import GreedyMetric, GreedySettings
from trainer.analysis.merge_fitting.logistic_loss import mean_loss
from trainer.analysis.merge_fitting.rule_comparison import compare_rules
from trainer.analysis.merge_fitting.rule_fitting import (
    ALL_RULES,
    FitSettings,
    FittedRule,
    fit_calibrated,
    fit_rule,
)
from trainer.analysis.trained_rows import trained_note, trained_on
from trainer.failures import leave
from trainer.merge_files import FittedOn, MergeFile, read_merge_file, write_merge
from trainer.output_files import check_output_files
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.reading import Predictions
from trainer.predictions.rewriting import JoinedJob, join_jobs, merge_again

MAX_ROWS = 5_000_000
_JOB = re.compile(r"(?:([a-z0-9_]+)=)?(.+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, runs the command, gives the exit code."""
    options = _parser().parse_args(arguments)
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "compare": _compare,
        "fit": _fit,
        "apply": _apply,
        "join": _join,
    }
    try:
        commands[options.command](options)
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder that is not there
        print(f"error: {error}; nothing finished was written", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("stopped; nothing finished was written", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/merge_predictions.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    compare = commands.add_parser("compare", help="judge all rules on the same rows")
    add = compare.add_argument
    add("predictions", metavar="DIR", help="finished, labelled predictions")
    add("--rules", nargs="*", choices=ALL_RULES, default=list(ALL_RULES), metavar="RULE", help=", ".join(ALL_RULES))
    add(
        "--calibrations",
        nargs="+",
        choices=CALIBRATION_KINDS,
        default=["none", "platt"],
        metavar="KIND",
        help=f"each behind each rule: {', '.join(CALIBRATION_KINDS)} (default: none platt)",
    )
    add("--merge", nargs="+", default=[], metavar="FILE", help="judge these merge.toml, too, as they are")
    add("--folds", type=int, default=5, help="of cross-fitting (default: 5)")
    add("--output", metavar="FILE", help="write the table there too: Markdown, or all figures where it ends in .json")
    _add_rows(compare)
    _add_fits(compare)

    fit = commands.add_parser("fit", help="fit one rule, write merge.toml")
    add = fit.add_argument
    add("predictions", metavar="DIR", help="finished, labelled predictions")
    add("--rule", required=True, choices=ALL_RULES, metavar="RULE", help=", ".join(ALL_RULES))
    add(
        "--calibration",
        choices=CALIBRATION_KINDS,
        default="none",
        metavar="KIND",
        help=f"fitted behind the rule: {', '.join(CALIBRATION_KINDS)} (default: none)",
    )
    add("--output", required=True, metavar="FILE", help="the merge.toml")
    _add_rows(fit)
    _add_fits(fit)

    apply = commands.add_parser("apply", help="write predictions with another merge")
    add = apply.add_argument
    add("predictions", metavar="DIR", help="finished predictions, with labels or without")
    add("--merge", required=True, metavar="FILE", help="a merge.toml")
    add("--output", required=True, metavar="DIR", help="an empty folder, or none yet")
    add("--parts", nargs="+", metavar="PART", help="these alone (default: all)")

    join = commands.add_parser("join", help="put jobs side by side")
    add = join.add_argument
    add(
        "jobs", nargs="+", metavar="[LABEL=]DIR", help="predictions of the same rows; LABEL comes before members' names"
    )
    add("--rule", choices=tuple(RULES), default="mean_logit", metavar="RULE", help="of the merge (default: mean_logit)")
    add("--output", required=True, metavar="DIR", help="an empty folder, or none yet")
    return parser


def _add_rows(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--parts", nargs="+", metavar="PART", help="rows of these parts alone (default: all)")
    add(
        "--max-rows",
        type=int,
        default=MAX_ROWS,
        metavar="N",
        help=f"take at most so many, evenly spaced; 4 bytes each per member, twice (default: {MAX_ROWS:,})",
    )


def _add_fits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    given = GreedySettings()
    add("--greedy-metric", choices=get_args(GreedyMetric), default=given.metric, help="what greedy selection improves")
    add("--greedy-rounds", type=int, default=given.rounds, metavar="N", help=f"joins (default: {given.rounds})")
    add(
        "--greedy-starts",
        type=int,
        default=given.starts,
        metavar="N",
        help="the best so many join at once (default: 1)",
    )
    add("--greedy-bags", type=int, default=given.bags, metavar="N", help="random halves of the members (default: none)")
    add("--stacking-l2", type=float, metavar="X", help="L2 strength (default: chosen on held-out rows)")


def _settings(options: argparse.Namespace) -> FitSettings:
    for flag, least in (("max_rows", 2), ("greedy_rounds", 1), ("greedy_starts", 1), ("greedy_bags", 0)):
        if getattr(options, flag) < least:
            raise ConfigError(f"--{flag.replace('_', '-')}: {getattr(options, flag)} is below {least}")
    if options.stacking_l2 is not None and not 0.0 < options.stacking_l2 < float("inf"):
        raise ConfigError(f"--stacking-l2: {options.stacking_l2} must be a number above zero")
    greedy = GreedySettings(
        metric=options.greedy_metric,
        rounds=options.greedy_rounds,
        starts=options.greedy_starts,
        bags=options.greedy_bags,
    )
    return FitSettings(greedy=greedy, stacking_strength=options.stacking_l2)


def _read(options: argparse.Namespace) -> tuple[Predictions, FitRows]:
    predictions = Predictions(options.predictions, parts=options.parts)
    for one in trained_on(predictions.manifest, parts={file.part for file in predictions.files}):
        print(f"note: {trained_note(one)}", flush=True)
    rows = read_fit_rows(predictions, max_rows=options.max_rows)
    if rows.num_rows < rows.num_rows_total:
        print(f"{rows.num_rows:,} evenly spaced rows of {rows.num_rows_total:,} (--max-rows)", flush=True)
    return predictions, rows


def _compare(options: argparse.Namespace) -> None:
    settings = _settings(options)
    check_output_files({"--output": options.output})
    merges = {path: read_merge_file(path) for path in options.merge}
    predictions, rows = _read(options)
    for path, merge in merges.items():
        _say_seen(merge, path=path, predictions=predictions)
    comparison = compare_rules(
        rows,
        rules=list(dict.fromkeys(options.rules)),
        kinds=list(dict.fromkeys(options.calibrations)),
        folds=options.folds,
        settings=settings,
        given={path: merge.rule for path, merge in merges.items()},
    )
    text = comparison.as_markdown()
    print(text, end="")
    if options.output and options.output.endswith(".json"):
        storage.write_json(options.output, comparison.as_json())
    elif options.output:
        storage.write_text(options.output, text)


def _fit(options: argparse.Namespace) -> None:
    settings = _settings(options)
    check_output_files({"--output": options.output})
    predictions, rows = _read(options)
    fitted = fit_calibrated(fit_rule(options.rule, rows, settings), options.calibration, rows)
    provenance = _fitted_on(fitted, predictions, rows)
    write_merge(options.output, fitted.rule, provenance)
    for name, weight in zip(fitted.rule.members, fitted.rule.weights, strict=False):
        print(f"  {name:24} {weight:+.5f}")
    print("".join(f"{note}\n" for note in fitted.notes), end="")
    print(
        f"log loss of the rows that it was fitted on: {provenance.log_loss_nats:.5f} nats, of the mean logit"
        f" {provenance.log_loss_mean_logit_nats:.5f}; tools/merge_predictions.py compare judges it on unseen rows"
    )
    print(f"merge: {options.output}")


def _fitted_on(fitted: FittedRule, predictions: Predictions, rows: FitRows) -> FittedOn:
    mean = MergeRule.fixed("mean_logit", members=rows.members)
    before, after = (mean_loss(rows.labels, merged_logits(rule, rows.logits)) for rule in (mean, fitted.rule))
    manifest = predictions.manifest
    return FittedOn(
        folder=predictions.folder,
        parts=tuple(dict.fromkeys(file.part for file in predictions.files)),
        num_rows=predictions.num_rows,
        num_rows_used=rows.num_rows,
        dictionary=str(manifest.data.get("dictionary", "")),
        checkpoints=tuple(
            f"{f'{one.label}=' if one.label else ''}{one.folder} at step {one.step}" for one in manifest.checkpoints
        ),
        log_loss_mean_logit_nats=before,
        log_loss_nats=after,
        notes=fitted.notes,
    )


def _apply(options: argparse.Namespace) -> None:
    merge = read_merge_file(options.merge)
    predictions = Predictions(options.predictions, parts=options.parts)
    _say_seen(merge, path=options.merge, predictions=predictions)
    _say(merge_again(predictions, merge.rule, output=options.output), output=options.output)


def _say_seen(merge: MergeFile, *, path: str, predictions: Predictions) -> None:
    if merge.fitted_on is not None and storage.same_place(merge.fitted_on.folder, predictions.folder):
        seen = {file.part for file in predictions.files} & set(merge.fitted_on.parts)
        if seen:
            print(f"note: {path} was fitted on {', '.join(sorted(seen))}; merged has seen these rows")


def _join(options: argparse.Namespace) -> None:
    found = [_JOB.fullmatch(job) for job in options.jobs]
    jobs = [JoinedJob(label=one[1] or "", predictions=Predictions(one[2])) for one in found if one]
    if len(jobs) != len(options.jobs):
        raise ConfigError("an empty folder name is no folder; name one")
    _say(join_jobs(jobs, rule=options.rule, output=options.output), output=options.output)


def _say(manifest: PredictionManifest, *, output: str) -> None:
    for name, figures in manifest.metrics.items():
        if figures["auc"] is not None:
            told = f"AUC {figures['auc']:.5f}  log loss {figures['log_loss_nats']:.5f}"
            print(f"  {name:24} {told}{'  <-' if name == MERGED else ''}")
    print(f"predictions: {output}  ({manifest.num_rows:,} rows in {len(manifest.files)} files)")


if __name__ == "__main__":
    leave(main())
