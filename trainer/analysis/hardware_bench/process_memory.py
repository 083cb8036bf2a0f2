"""What a training process takes of memory before it has a table: libraries, the CUDA context, collectives' buffers."""

from __future__ import annotations

import re

import torch

import trainer.assembly  # noqa: F401 - with it come all libraries that a training process has in memory
from sharding.measuring.collectives import Collectives
from trainer import storage
from trainer.analysis.hardware_bench.rank_processes import RankHere

_MIB = 2**20
_GIB = 2**30


def process_gib(here: RankHere, port: int) -> float:
    """What this process takes with an open process group before the first table: of the GPU, or of the host.

    On a GPU what other programs hold of it counts too. It is to be called before anything is measured.
    """
    with here.world(port=port) as runtime:
        runtime.sum(torch.ones(1))
        if here.device.type == "cuda":
            Collectives(runtime.group, device=here.device).run("all_reduce", num_bytes=_MIB)
            free, total = torch.cuda.mem_get_info()
            return float(total - free - torch.cuda.memory_reserved()) / _GIB
        status = storage.read_text("/proc/self/status")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, "Linux tells the memory of a process"
    return int(found[1]) * 1024 / _GIB
