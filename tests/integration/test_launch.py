"""Every way to start a run works, with one real run each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from configs.loader import dump_run, read_run
from modules import members
from tests.support.commands import ROOT, run_python, run_torchx
from tests.support.runs import SMALL_PATH, small_run
from trainer.failures import guard
from trainer.main import main


def test_torchrun_trains_evaluates_and_leaves_a_run_folder(trained):
    names = {path.name for path in trained.folder.iterdir()}
    assert {"run.toml", "plan.json", "metrics.jsonl", "tensorboard", "checkpoints", "outcome.json"} <= names
    lines = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 6, 6]
    assert lines[-1]["eval/merged/auc"] > 0
    phases = {key for key in lines[0] if key.startswith("time/")}
    assert phases == {f"time/{phase}_fraction" for phase in ("data", "lookup_and_communication", "dense", "optimizer")}
    assert json.loads((trained.folder / "outcome.json").read_text())["exit_code"] == 0
    assert list((trained.folder / "tensorboard").iterdir())
    assert "ETA" in trained.output and "rows/s" in trained.output


def test_the_saved_run_loads_again_to_an_equal_object(trained):
    for folder in (trained.folder, trained.checkpoint):
        text = (folder / "run.toml").read_text()
        config = read_run(text, source="run.toml", resolve_arch=members.config_class, arch_kinds=members.kinds())
        again = read_run(
            dump_run(config), source="again", resolve_arch=members.config_class, arch_kinds=members.kinds()
        )
        assert config == again
        assert config.members == small_run().members


def test_plain_python_without_any_argument_trains_the_demo_on_the_stream(tmp_path):
    # What the literal line runs, shortened.
    done = run_python("trainer/main.py", "--data.synthetic.train_rows=2048", f"--run.folder={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "best possible on the held-out rows" in done.stdout
    for name in ("deep", "cross", "dot", "factor", "merged"):
        assert f"\n{name} " in done.stdout


@pytest.mark.slow  # the default tests run it dry, and start a script by position
def test_torchx_takes_the_script_by_flag(tmp_path):
    words = ("run", "-s", "local_cwd", "dist.ddp", "-j", "1x2", "--script", "trainer/main.py", "--")
    done = run_torchx(*words, "--config", str(SMALL_PATH), f"--run.folder={tmp_path}/run", "--train.until={steps=2}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step_0000000002" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("ranks", "keys", "rows"),
    [
        pytest.param(8, [], 65_536, marks=pytest.mark.slow),
        (2, ["--data.synthetic.train_rows=4096"], 4_096),
    ],
)
def test_the_literal_line(tmp_path, ranks, keys, rows):
    (tmp_path / "trainer").symlink_to(ROOT / "trainer")  # so that the run's folder is made here
    words = ("run", "-s", "local_cwd", "dist.ddp", "-j", f"1x{ranks}", "trainer/main.py", *keys)
    done = run_torchx(*words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCEEDED" in done.stderr
    assert f"{ranks} rank(s)" in done.stderr  # where TorchX shows a job's lines
    (outcome,) = tmp_path.glob("runs/demo/*/outcome.json")
    assert json.loads(outcome.read_text())["progress"]["rows_total"] == rows


def test_help_and_print_config(capfd):
    helped = run_python("trainer/main.py", "--help")
    assert helped.returncode == 0 and "train.batch_size" in helped.stdout
    assert guard(main, ["--config", str(SMALL_PATH), "--train.batch_size=48", "--print-config"]) == 0
    shown = capfd.readouterr().out
    config = read_run(shown, source="shown", resolve_arch=members.config_class, arch_kinds=members.kinds())
    assert config == small_run("--train.batch_size=48")


@pytest.mark.slow
def test_torchx_takes_the_script_by_position_and_brings_a_killed_rank_back(tmp_path):
    """A config, overrides, and --max_retries with nobody watching; both ranks leave the trace of the profiled steps."""
    folder = tmp_path / "run"
    words = ("run", "-s", "local_cwd", "dist.ddp", "-j", "1x2", "--max_retries", "2", "trainer/main.py")
    keys = ("--train.until={steps=30}", "--checkpoint.every.steps=1", "--train.profile_steps=[29, 30]")
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_rank, args=(folder, killed), daemon=True)
    killer.start()
    done = run_torchx(*words, "--config", str(SMALL_PATH), f"--run.folder={folder}", *keys)
    killer.join(timeout=1)
    assert killed, "the run was over before its rank could be killed"
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCEEDED" in done.stderr
    outcome = json.loads((folder / "outcome.json").read_text())
    assert (outcome["exit_code"], outcome["progress"]["step"]) == (0, 30)
    assert {path.name for path in (folder / "profile").iterdir()} == {"rank_0.json.gz", "rank_1.json.gz"}


def _kill_a_rank(folder: Path, killed: list[int]) -> None:
    """Kills rank 1 of the run in that folder once a checkpoint is there, and notes the process."""
    while not list(folder.glob("checkpoints/*/manifest.json")):
        time.sleep(0.01)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
            if f"--run.folder={folder}".encode() in words and b"RANK=1" in environment:
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))
