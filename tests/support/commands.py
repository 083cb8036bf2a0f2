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
    others = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def run_python(script: str, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`python SCRIPT WORDS` in the repository's root."""
    return _run([sys.executable, script, *words], timeout=timeout)


def run_code(code: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """`python -c CODE` in the repository's root."""
    return _run([sys.executable, "-c", code], timeout=timeout)


def run_torchrun(
    script: str, *words: str, ranks: int, restarts: int = 0, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node RANKS --max-restarts RESTARTS SCRIPT WORDS` in the repository's root."""
    command = ["torchrun", "--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
    command += [script, *words]
    return _run([str(BIN / command[0]), *command[1:]], timeout=timeout)


def run_torchx(*words: str, folder: Path = ROOT, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """`torchx WORDS` in a folder, by itself the repository's root."""
    return _run([str(BIN / "torchx"), *words], timeout=timeout, folder=folder)


def _run(command: list[str], *, timeout: float, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
