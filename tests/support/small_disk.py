"""A disk that is small enough to fill: a tmpfs, where this machine lets one be mounted."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """The folder, as a disk of its own of 64 KiB; skips the test where none can be mounted."""
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=False).returncode
    ):
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        # A run that failed may still hold a file open.
        subprocess.run(["umount", "--lazy", folder], check=True)


def resize(disk: Path, size: str) -> None:
    """Gives the disk another size, as "300k"."""
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
