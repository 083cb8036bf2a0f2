"""A preparation on a disk that is really full says so, and goes on once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.click_log import synthetic_lines, write_log
from tests.support.commands import run_python
from tests.support.preparing import contents


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own in memory, where this machine lets one be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=False).returncode
    ):
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("words", [("--vocabulary", "hash"), (), ("--reparse",)])
@pytest.mark.parametrize("kilobytes", [64, 300, 400, 500])
def test_a_full_disk(small_disk, tmp_path, words, kilobytes):
    log = write_log(tmp_path / "day_0", synthetic_lines(2_000))
    machine = ("--workers", "1", "--memory-gb", "2")

    def run(output: Path) -> subprocess.CompletedProcess[str]:
        return run_python("tools/prepare_criteo.py", "--input", log, "--output", str(output), *machine, *words)

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", small_disk], check=True)

    resize(f"{kilobytes}k")
    done = run(small_disk / "data")
    if done.returncode:  # the more room, the later
        assert done.returncode == 1, f"{done.returncode}: {done.stderr}"
        assert "No space left on device" in done.stderr and "make room and run again" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 1 or kilobytes > 300
    resize("50m")
    assert run(small_disk / "data").returncode == 0
    assert run(tmp_path / "whole").returncode == 0
    assert contents(small_disk / "data") == contents(tmp_path / "whole")
