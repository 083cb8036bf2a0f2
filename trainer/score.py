"""Scores every row once with a checkpoint's members: parse, assemble, score, publish.

torchx run -s local_cwd dist.ddp -j 1x2 trainer/score.py --checkpoint DIR --output DIR --data.root=DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # a script finds its own folder there

from configs.command import OUTPUT, SCORE, parse_command
from configs.errors import EXIT_DONE, ConfigError
from trainer.announcements import quality_table
from trainer.assembly import assemble_scoring
from trainer.command_line import checkpoint_folder, scoring_config, show_config, show_help
from trainer.failures import guard, leave
from trainer.prediction_files import finish_folder, prepare_folder
from trainer.runtime import Runtime


def main(argv: Sequence[str]) -> int:
    """Runs one scoring job and gives the exit code."""
    command = parse_command(argv, program=SCORE)
    if show_help(command, program=SCORE):
        return EXIT_DONE
    config = scoring_config(command)
    if show_config(command, config):
        return EXIT_DONE
    output = command.one(OUTPUT.name)
    if output is None:
        raise ConfigError("--output: not given; name a folder for the predictions")

    with Runtime(config.run) as runtime:
        runtime.from_main(lambda: prepare_folder(output))
        assembled = assemble_scoring(config, checkpoint=checkpoint_folder(command), runtime=runtime)
        runtime.say(assembled.report.sentence())
        runtime.say(f"scoring {assembled.job.num_rows:,} rows with {', '.join(assembled.member_names)}")

        # A rank that fails ends: the others notice in their next exchange of embeddings, or here.
        with runtime.patience("scoring"):
            mine = assembled.job.run(output)
        files = [file for of_rank in runtime.gather(mine) for file in of_rank]

        figures = runtime.from_main(
            lambda: finish_folder(
                output,
                files=files,
                expected=assembled.job.expected,
                members=assembled.member_names,
                provenance=assembled.provenance,
            )
        )
        unlabelled = assembled.job.unlabelled
        runtime.say(f"no figures: {', '.join(unlabelled)} without labels" if unlabelled else quality_table(figures))
        runtime.say(f"predictions: {output}  ({assembled.job.num_rows:,} rows in {len(files)} files)")
    return EXIT_DONE


if __name__ == "__main__":
    leave(guard(main, sys.argv[1:]))
