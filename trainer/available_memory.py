"""What of a machine's or a GPU's memory can still be taken."""

from __future__ import annotations

import os
import re

import torch

from trainer import storage

_MACHINE = "/proc/meminfo"
_CGROUP = "/sys/fs/cgroup"


def available_bytes(device: torch.device) -> int:
    """Of the GPU; else of this machine, or of the container (cgroup v2) where that may take less.

    File pages that the kernel gives back on demand count as available. What other processes are about to take is not
    known here.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    machine = _machine_bytes()
    limit = storage.read_text(f"{_CGROUP}/memory.max").strip() if storage.is_file(f"{_CGROUP}/memory.max") else "max"
    if not limit.isdecimal():
        return machine
    used = int(storage.read_text(f"{_CGROUP}/memory.current"))
    given_back = re.search(r"^inactive_file (\d+)$", storage.read_text(f"{_CGROUP}/memory.stat"), re.MULTILINE)
    return min(machine, int(limit) - used + (int(given_back[1]) if given_back else 0))


def _machine_bytes() -> int:
    if storage.is_file(_MACHINE):
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", storage.read_text(_MACHINE), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # no better is told
