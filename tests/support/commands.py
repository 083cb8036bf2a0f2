"""Runs the programs as a user does, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    """A user's environment: our interpreter first on PATH, nothing of a surrounding job."""
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def run_python(script: str, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`python SCRIPT WORDS` in the repository's root."""
    return _run([sys.executable, script, *words], timeout=timeout)


def run_torchrun(script: str, *words: str, ranks: int, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node RANKS SCRIPT WORDS` in the repository's root."""
    command = ["torchrun", "--standalone", "--nproc-per-node", str(ranks), script, *words]
    return _run([str(BIN / command[0]), *command[1:]], timeout=timeout)


def run_torchx(*words: str, folder: Path = ROOT, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """`torchx WORDS` in a folder, by itself the repository's root."""
    return _run([str(BIN / "torchx"), *words], timeout=timeout, folder=folder)


def _run(command: list[str], *, timeout: float, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
