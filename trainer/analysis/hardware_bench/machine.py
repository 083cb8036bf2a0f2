"""Machine: what the system tells of the host that is measured: cores, memory, caches, GPUs."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from trainer.analysis.bench.figures import machine
from trainer.worker_processes import num_cores

_GIB = 2**30
_MIB = 2**20
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_SUFFIXES = {"K": 2**10, "M": 2**20, "G": 2**30}
_PACKAGES = ("torch", "fbgemm-gpu", "fbgemm-gpu-cpu", "torchrec")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A host with so many ranks."""

    device: str  # cpu or cuda
    ranks: int
    name: str
    host_memory_gib: float
    gpu_memory_gib: float  # of one; 0 on CPU
    cache_mib: float  # of one rank's share of the last level; 0: not known

    @property
    def rank_bytes(self) -> float:
        """Memory of a rank where it computes."""
        return (self.gpu_memory_gib or self.host_memory_gib / self.ranks) * _GIB


def this_machine(*, device: str, ranks: int) -> Machine:
    """The machine that this process runs on."""
    host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        return Machine(
            device=device,
            ranks=ranks,
            name=f"{ranks} x {gpu.name}",
            host_memory_gib=round(host_bytes / _GIB, 2),
            gpu_memory_gib=round(gpu.total_memory / _GIB, 2),
            cache_mib=round(gpu.L2_cache_size / _MIB, 2),
        )
    return Machine(
        device=device,
        ranks=ranks,
        name=f"{machine()['processor']}, {ranks} {'rank' if ranks == 1 else 'ranks'}",
        host_memory_gib=round(host_bytes / _GIB, 2),
        gpu_memory_gib=0.0,
        cache_mib=round(cache_share_bytes(_CACHES, ranks=ranks, cores=os.cpu_count() or 1) / _MIB, 2),
    )


def num_ranks_here(device: str) -> int:
    """One for each GPU, or for each physical core that this process may use."""
    if device == "cuda":
        return torch.cuda.device_count()
    siblings = {
        tuple(cores_of(file.read_text()))
        for core in sorted(os.sched_getaffinity(0))
        if (file := Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")).is_file()
    }
    return len(siblings) or num_cores()


def cache_share_bytes(caches: Path, *, ranks: int, cores: int) -> float:
    """A rank's share of the last-level cache, the ranks being spread evenly over the host's cores; 0: not known.

    Args:
        caches: A core's folder of index0, index1, ..., as Linux has it (ABI/stable/sysfs-devices-system-cpu).
        ranks: Of the host.
        cores: Of the host, as the system counts them.
    """
    last, last_level = 0.0, 0
    for folder in sorted(caches.glob("index*")):
        if (folder / "type").read_text().strip() == "Instruction":
            continue
        level, size = int((folder / "level").read_text()), (folder / "size").read_text().strip()
        beside = len(cores_of((folder / "shared_cpu_list").read_text()))
        if level > last_level:
            last_level = level
            last = int(size[:-1]) * _SUFFIXES[size[-1]] / max(1.0, ranks * min(beside, cores) / cores)
    return last


def cores_of(listed: str) -> list[int]:
    """Numbers of a list as the kernel writes it: 0-3,8."""
    numbers: list[int] = []
    for first, _, last in re.findall(r"(\d+)(-(\d+))?", listed):
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def measured_on() -> str:
    """The day and the versions."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return f"{time.strftime('%Y-%m-%d')}, {', '.join(found)}"
