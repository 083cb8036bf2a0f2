"""From a raw click log to merged predictions and a table, in one command.

    python tools/demo.py            # about 400,000 rows, two days, two ranks
    python tools/demo.py --rows-per-day 50000 --folder demo_small

Each step is left out when it is already done, so an interrupted demo goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.errors import EXIT_DONE, EXIT_FAILURE, ChorusError, ConfigError
from modules.merge import MERGED
from trainer.analysis.comparison import Judged, draw, judge
from trainer.checkpoints.manifest import MANIFEST_NAME as CHECKPOINT_MANIFEST
from trainer.clock import clock
from trainer.predictions.manifest import MANIFEST_NAME as PREDICTIONS_MANIFEST
from trainer.predictions.reading import Predictions
from trainer.reporting import TENSORBOARD_NAME

ROOT = Path(__file__).resolve().parents[1]
TRAIN_DAY, TEST_DAY = "day_0", "day_1"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and gives the exit code."""
    arguments = _parse(argv)
    folder = Path(arguments.folder)
    raw, prepared, run = folder / "raw", folder / "prepared", folder / "run"
    predictions, chart = folder / "predictions", folder / "quality.png"
    started = time.monotonic()
    try:
        _refuse_other_size(raw / "ceiling.json", num_rows=arguments.rows_per_day)
        _step("generate a click log of two days", raw / "ceiling.json", lambda: _generate(raw, arguments))
        _step("prepare it: dictionaries of day 0, ids, npy files", None, lambda: _prepare(raw, prepared))
        _step("train four members on day 0", None, lambda: _train(prepared, run, arguments))
        _step("score day 1", predictions / PREDICTIONS_MANIFEST, lambda: _score(prepared, run, predictions, arguments))
    except subprocess.CalledProcessError as error:
        print(f"error: the step failed with exit code {error.returncode}; its message is above", file=sys.stderr)
        return EXIT_FAILURE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    written = Predictions(str(predictions))
    judged = judge(written.labels().astype(np.float64), written.probabilities())
    ceiling: dict[str, float] = json.loads((raw / "ceiling.json").read_text())[TEST_DAY]
    draw(judged, path=str(chart))
    print(f"\n{table(judged, ceiling=ceiling)}\n\n{verdict(judged)}\n")
    print(f"run folder   {run}")
    print(f"TensorBoard  tensorboard --logdir {run / TENSORBOARD_NAME}")
    print(f"predictions  {predictions}/*.parquet")
    print(f"chart        {chart}")
    print(f"done in {clock(time.monotonic() - started)}; delete {folder} to start anew")
    return EXIT_DONE


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="tools/demo.py"
    )
    parser.add_argument("--folder", default="demo", help="where everything goes (default: %(default)s)")
    parser.add_argument("--rows-per-day", type=int, default=200_000, help="default: %(default)s")
    parser.add_argument("--ranks", type=int, default=2, help="processes (default: %(default)s)")
    return parser.parse_args(argv)


def _step(what: str, done: Path | None, do: Callable[[], None]) -> None:
    if done is not None and done.exists():
        print(f"== {what}: already done ({done})", flush=True)
        return
    print(f"== {what}", flush=True)
    started = time.monotonic()
    do()
    print(f"   {clock(time.monotonic() - started)}", flush=True)


def _refuse_other_size(ceiling: Path, *, num_rows: int) -> None:
    if ceiling.exists():
        found = json.loads(ceiling.read_text())[TEST_DAY]["num_rows"]
        if found != num_rows:
            raise ConfigError(
                f"--rows-per-day: {num_rows}, but {ceiling.parent} holds days of {found} rows; give another --folder"
            )


def _generate(raw: Path, arguments: argparse.Namespace) -> None:
    tables = ("--tables", "kaggle", "--max-table-rows", 20_000)
    _run("tools/make_synthetic.py", "--output", raw, "--days", 2, "--rows-per-day", arguments.rows_per_day, *tables)


def _prepare(raw: Path, prepared: Path) -> None:
    logs = [raw / f"{day}.tsv.gz" for day in (TRAIN_DAY, TEST_DAY)]
    _run(
        "tools/prepare_criteo.py",
        "--input",
        *logs,
        "--output",
        prepared,
        "--vocabulary-from",
        TRAIN_DAY,
        "--min-count",
        8,
    )


def _train(prepared: Path, run: Path, arguments: argparse.Namespace) -> None:
    words = [
        "--config",
        "configs/demo.toml",
        f"--run.folder={run.resolve()}",
        f"--data.root={prepared.resolve()}",
        f'--data.train=["{TRAIN_DAY}"]',
    ]
    _torchx("trainer/main.py", *words, ranks=arguments.ranks)


def _score(prepared: Path, run: Path, predictions: Path, arguments: argparse.Namespace) -> None:
    whole = sorted(manifest.parent for manifest in (run / "checkpoints").glob(f"*/{CHECKPOINT_MANIFEST}"))
    words = [
        "--checkpoint",
        whole[-1].resolve(),
        "--output",
        predictions.resolve(),
        f"--data.root={prepared.resolve()}",
        f'--score.parts=["{TEST_DAY}"]',
    ]
    _torchx("trainer/score.py", *words, ranks=arguments.ranks)


def _torchx(script: str, *words: object, ranks: int) -> None:
    torchx = Path(sys.executable).parent / "torchx"
    command = [torchx, "run", "-s", "local_cwd", "dist.ddp", "-j", f"1x{ranks}", script, *words]
    print(f"   torchx {' '.join(str(word) for word in command[1:])}", flush=True)
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT)


def _run(tool: str, *words: object) -> None:
    subprocess.run([sys.executable, str(ROOT / tool), *(str(word) for word in words)], check=True)


def table(judged: Sequence[Judged], *, ceiling: Mapping[str, float]) -> str:
    """One line a member, then merged, then the ceiling: the best that any model can do on these rows."""
    lines = [f"{'on the test day':<16}{'AUC':>9}{'log loss (nats)':>17}{'NE':>9}{'calibration':>13}"]
    for one in judged:
        of = one.metrics
        lines.append(f"{one.name:<16}{of.auc:>9.5f}{of.log_loss_nats:>17.5f}{of.ne:>9.5f}{of.calibration:>13.4f}")
    lines.append(f"{'ceiling':<16}{ceiling['auc']:>9.5f}{ceiling['log_loss_nats']:>17.5f}{ceiling['ne']:>9.5f}")
    return "\n".join(lines)


def verdict(judged: Sequence[Judged]) -> str:
    """Whether merging helped, in a sentence."""
    merged = next(one for one in judged if one.name == MERGED)
    best = max((one for one in judged if one.name != MERGED), key=lambda one: one.metrics.auc)
    gain, width = -best.auc_gain.value, best.auc_gain.half_width()
    helped = "Merging made no clear difference"
    if best.auc_gain.is_clear():
        helped = "Merging helped" if gain > 0 else "Merging hurt"
    return (
        f"{helped}: AUC {merged.metrics.auc:.5f} merged, {best.metrics.auc:.5f} for the best member ({best.name});"
        f" the difference is {gain:+.5f} ± {width:.5f} (95 % interval, paired on {merged.metrics.num_rows:,} rows)."
    )


if __name__ == "__main__":
    sys.exit(main())
