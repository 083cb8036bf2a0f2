"""Machine: caches as Linux tells them, and a rank's share."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.analysis.hardware_bench.machine import cache_share_bytes, cores_of, num_ranks_here, this_machine

MIB = 2**20


def cache(folder: Path, number: int, *, level: int, kind: str, size: str, cores: str) -> None:
    index = folder / f"index{number}"
    index.mkdir(parents=True)
    for name, text in {"level": str(level), "type": kind, "size": size, "shared_cpu_list": cores}.items():
        (index / name).write_text(f"{text}\n")


def test_a_share_of_the_last_level(tmp_path: Path) -> None:
    cache(tmp_path, 0, level=1, kind="Data", size="48K", cores="0,64")
    cache(tmp_path, 1, level=1, kind="Instruction", size="32K", cores="0,64")
    cache(tmp_path, 2, level=2, kind="Unified", size="2048K", cores="0,64")
    assert cache_share_bytes(tmp_path, ranks=64, cores=128) == 2 * MIB  # a rank a core, no third level
    cache(tmp_path, 3, level=3, kind="Unified", size="32M", cores="0-7,64-71")
    # 8 sockets' parts of 16 of 128 threads: 64 ranks are 8 to each.
    assert cache_share_bytes(tmp_path, ranks=64, cores=128) == 4 * MIB
    assert cache_share_bytes(tmp_path, ranks=2, cores=128) == 32 * MIB  # one cannot have more than all of it


def test_no_cache_is_known(tmp_path: Path) -> None:
    assert cache_share_bytes(tmp_path, ranks=2, cores=2) == 0


def test_lists_of_cores() -> None:
    assert cores_of("0-3,8,10-11\n") == [0, 1, 2, 3, 8, 10, 11]
    assert cores_of("\n") == []


def test_this_machine() -> None:
    machine = this_machine(device="cpu", ranks=2)
    assert machine.host_memory_gib > 0.5
    assert machine.rank_bytes == pytest.approx(machine.host_memory_gib / 2 * 2**30)
    assert machine.gpu_memory_gib == 0
    assert num_ranks_here("cpu") >= 1
