"""Hardware: what a plan is made for, turned into a TorchRec Topology."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from torchrec.distributed.planner import Topology

from configs.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine that a job runs on, as the planner sees it."""

    device: Literal["cpu", "cuda"]
    world_size: int
    local_world_size: int
    hbm_bytes: int  # of one rank; 0 without a GPU
    ddr_bytes: int  # of one rank

    def topology(self) -> Topology:
        """TorchRec's description of the same machine."""
        return Topology(
            world_size=self.world_size,
            compute_device=self.device,
            local_world_size=self.local_world_size,
            hbm_cap=self.hbm_bytes,
            ddr_cap=self.ddr_bytes,
        )


def live_hardware(*, device: torch.device, world_size: int, local_world_size: int) -> Hardware:
    """The machine this process runs on; every host is taken to be alike.

    Raises:
        ConfigError: the world does not divide into hosts of equal size.
    """
    if world_size % local_world_size:
        raise ConfigError(f"{world_size} ranks do not divide into hosts of {local_world_size}; start as many on each")
    host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cuda = device.type == "cuda"
    return Hardware(
        device="cuda" if cuda else "cpu",
        world_size=world_size,
        local_world_size=local_world_size,
        hbm_bytes=torch.cuda.get_device_properties(device).total_memory if cuda else 0,
        ddr_bytes=host_bytes // local_world_size,
    )
