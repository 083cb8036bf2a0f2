"""Scores every row once with the members of one or more checkpoints: parse, plan, assemble, score, publish.

torchx run -s local_cwd dist.ddp -j 1x2 trainer/score.py --checkpoint DIR --output DIR --data.root=DIR
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # a script finds its own folder there

from configs.command import SCORE, parse_command
from configs.errors import EXIT_DONE
from trainer.announcements import say_predictions, say_scoring
from trainer.command_line import output_folder, scored_runs, show_config, show_help
from trainer.failures import guard, leave
from trainer.predictions.figures import prediction_figures
from trainer.predictions.manifest import PredictionManifest
from trainer.predictions.output_folder import OutputFolder
from trainer.predictions.range_files import RangeFiles
from trainer.predictions.range_writer import RangeWriter
from trainer.predictions.reading import Predictions
from trainer.runtime import Runtime
from trainer.scored_run import ScoredRun
from trainer.scoring_assembly import assemble_scoring
from trainer.scoring_plan import ScoringPlan, plan_scoring


def main(argv: Sequence[str]) -> int:
    """Runs one scoring job and gives the exit code."""
    command = parse_command(argv, program=SCORE)
    if show_help(command, program=SCORE):
        return EXIT_DONE
    runs = scored_runs(command)
    if show_config(command, runs[0].config):
        return EXIT_DONE
    output = output_folder(command)

    with Runtime(runs[0].config.run) as runtime:
        score(runs, output=output, runtime=runtime)
    return EXIT_DONE


def score(runs: Sequence[ScoredRun], *, output: str, runtime: Runtime) -> PredictionManifest:
    """Scores what is not scored yet, and finishes the folder. All ranks must call this."""
    with OutputFolder(output, runtime=runtime) as folder:
        plan = plan_scoring(runs, output=output, runtime=runtime)
        done = folder.begin(plan.decides, ranges=plan.ranges)
        if len(done) < len(plan.ranges):
            assembled = assemble_scoring(plan, done=done, runtime=runtime)
            say_scoring(plan, assembled, runtime=runtime)
            files = RangeFiles(folder.path, form=plan.form, source=plan.source)
            # A rank that fails ends: the others notice in their next exchange of embeddings, or in the vote.
            with runtime.patience("scoring"), RangeWriter(files.write) as writer:
                with runtime.steps():
                    assembled.job.run(writer.put)
                runtime.together(writer.finish)
        with runtime.patience("figures"):
            manifest = folder.finish(
                plan.ranges,
                parts=plan.parts,
                manifest=lambda files, beat: _with_figures(plan.manifest(files), folder.path, plan=plan, beat=beat),
            )
    say_predictions(manifest, plan=plan, folder=output, runtime=runtime)
    return manifest


def _with_figures(
    manifest: PredictionManifest, folder: str, *, plan: ScoringPlan, beat: Callable[[str], None]
) -> PredictionManifest:
    figures = prediction_figures(
        Predictions(folder, manifest=manifest),
        memory_bytes=int(plan.config.score.metrics_memory_gb * (1 << 30)),
        form=plan.config.score.figures,
        beat=beat,
        say=lambda text: print(text, flush=True),  # on rank 0 alone
    )
    return dataclasses.replace(
        manifest, metrics=figures.metrics, metrics_by_part=figures.by_part, calibration_curves=figures.curves
    )


if __name__ == "__main__":
    leave(guard(main, sys.argv[1:]))
