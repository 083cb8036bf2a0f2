"""What memory is left: of the machine, or of the container where that is less."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from trainer import available_memory
from trainer.available_memory import available_bytes

CPU = torch.device("cpu")


def test_of_this_machine() -> None:
    assert 0 < available_bytes(CPU) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("max", 0, 8_000 * 1024), ("5000000", 3_000_000, 2_600_000), ("90000000", 3_000_000, 8_000 * 1024)],
)
def test_of_a_container(limit: str, used: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  16000 kB\nMemFree:  10 kB\nMemAvailable:    8000 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 600000\nactive_file 7\n")
    monkeypatch.setattr(available_memory, "_MACHINE", str(tmp_path / "meminfo"))
    monkeypatch.setattr(available_memory, "_CGROUP", str(tmp_path))
    assert available_bytes(CPU) == expected
