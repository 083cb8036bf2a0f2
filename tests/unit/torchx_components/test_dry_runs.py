"""What TorchX would submit to each scheduler, compared with pinned files; nothing is submitted."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torchx.cli.main import main as torchx
from torchx.runner import config, get_runner
from torchx.specs import CfgVal

from configs.command import SCORE, TRAIN, parse_command
from configs.loader import config_text, read_run
from modules import members

ROOT = Path(__file__).resolve().parents[3]
PINNED = Path(__file__).with_name("pinned")
DOCUMENTED = [line for line in (ROOT / "docs" / "jobs.md").read_text().splitlines() if line.startswith("torchx run ")]
IMAGE = ("--image", "chorus:cuda")
RUN = "s3://runs/mlperf"
JOBS = {
    "train": (
        *("dist.ddp", *IMAGE, "-h", "h100_80gb_8", "-j", "2x8", "--max_retries", "3", "trainer/main.py"),
        *("--config", "configs/mlperf_dcnv2.toml", f"--run.folder={RUN}", "--checkpoint.every={seconds = 600}"),
    ),
    "score": (
        *("batch.score", *IMAGE, "-h", "l4_24gb_4", "-j", "1x4", "--mounts", "type=bind,src=/data,dst=/data"),
        *("--checkpoint", f"{RUN}/checkpoints/step_0000064015", "--output", "s3://runs/predictions"),
        *("--", "--data.root=/data/mlperf", '--score.parts=["day_23_test"]'),
    ),
}
SETTINGS: dict[str, dict[str, CfgVal]] = {
    "slurm": {"partition": "gpu"},
    "kubernetes": {},
    "aws_batch": {"queue": "gpu", "user": "someone"},
}


def need_package(scheduler: str) -> None:
    if scheduler == "kubernetes":
        pytest.importorskip("kubernetes", reason="this dry run needs a package: pip install kubernetes")


def dry_run(job: str, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The request as `torchx run --dryrun` prints it, in a fixed environment and with fixed ids."""
    need_package(scheduler)
    for name in [name for name in os.environ if name.startswith("TORCHX") or name in ("LOGLEVEL", "OMP_NUM_THREADS")]:
        monkeypatch.delenv(name)
    # As in an activated environment, and without a cluster's sinfo.
    monkeypatch.setenv("PATH", str(Path(sys.executable).absolute().parent))
    # An id's length decides where the long lines are broken.
    monkeypatch.setattr("torchx.schedulers.ids.random_id", lambda: "id")
    settings = dict(SETTINGS[scheduler])
    config.apply(scheduler, settings, dirs=[str(ROOT)])
    component, *words = JOBS[job]
    with get_runner() as runner:
        return f"{runner.dryrun_component(component, words, scheduler, cfg=settings)}\n"


@pytest.mark.filterwarnings("ignore:\\s*Role main configured with restarts")  # of Volcano 1.4
@pytest.mark.filterwarnings("ignore:Cannot determine resource instance type")  # only TorchX's aws_* resources name one
@pytest.mark.parametrize("scheduler", SETTINGS)
@pytest.mark.parametrize("job", JOBS)
def test_the_request_is_the_pinned_one(
    job: str, scheduler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"{job}_{scheduler}.txt"
    made = tmp_path / name
    made.write_text(dry_run(job, scheduler, monkeypatch))
    assert made.read_text() == (PINNED / name).read_text(), f"where this is wanted: cp {made} {PINNED / name}"


def test_none_is_pinned_that_nobody_compares() -> None:
    assert {path.name for path in PINNED.iterdir()} == {f"{job}_{name}.txt" for job in JOBS for name in SETTINGS}


@pytest.mark.filterwarnings("ignore:\\s*Role main configured with restarts")
@pytest.mark.parametrize("line", DOCUMENTED)
def test_every_line_of_the_documentation_runs_dry(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)
    need_package(words[words.index("-s") + 1])
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TORCHX_CONTEXT_NAME", "restored behind the test")  # TorchX sets it
    for action in ("ArgOnceAction", "torchxconfig"):  # they keep the flags of the process's earlier lines
        monkeypatch.setattr(f"torchx.cli.argparse_util.{action}.called_args", set())
    torchx(["run", "--dryrun", *words[2:]])
    assert "=== SCHEDULER REQUEST ===" in capsys.readouterr().out
    program = TRAIN if TRAIN.name in words else SCORE
    ours = words[words.index(TRAIN.name) + 1 :] if program is TRAIN else words[words.index("--checkpoint") :]
    command = parse_command([word for word in ours if word != "--"], program=program)
    text = config_text(str(ROOT / (command.one("--config") if program is TRAIN else "configs/mlperf_dcnv2.toml")))
    read_run(
        text,
        source=line,
        overrides=command.overrides,
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )


def test_the_documentation_has_both_jobs_for_every_scheduler() -> None:
    for scheduler in ("local_cwd", *SETTINGS):
        for component in ("dist.ddp", "batch.score"):
            assert [line for line in DOCUMENTED if f" -s {scheduler} " in line and f" {component} " in line]


@pytest.mark.parametrize(("restarts", "requeued"), [(0, True), (2, True), (3, False)])
def test_slurm_starts_a_failed_job_again_three_times(
    restarts: int, requeued: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The batch script itself, with a `srun` that fails and a `scontrol` that notes what it was told."""
    script = dry_run("train", "slurm", monkeypatch).split("# SBATCH_SCRIPT\n#----------------\n")[1]
    for program, text in {"srun": "exit 7", "scontrol": f'echo "$@" > {tmp_path}/told'}.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / program).chmod(0o755)
    bash = shutil.which("bash", path="/bin:/usr/bin")
    assert bash is not None
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin", "SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 7, done.stderr
    told = tmp_path / "told"
    assert (told.read_text().split() if told.exists() else []) == (["requeue", "12"] if requeued else [])
