"""Hardware: what a plan is made for, turned into a TorchRec Topology."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch
from torchrec.distributed.planner import Topology

from configs.errors import ConfigError
from configs.hardware_schema import HardwareFile

_GIB = 2**30
_GB = 1e9
_MS_PER_S = 1e3  # TorchRec counts bytes per millisecond
_RESERVE_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class Bandwidths:
    """What TorchRec's planner weighs placements with: bytes per second of one rank, one way.

    Attributes:
        memory: Of the memory that it computes in: a GPU's, or a CPU host's.
        host_memory: From host memory to a GPU; None on CPU hosts.
        intra_host: To a rank of the same host.
        inter_host: To a rank of another.
    """

    memory: float
    host_memory: float | None
    intra_host: float
    inter_host: float


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine that a job runs on, as the planner sees it."""

    device: Literal["cpu", "cuda"]
    world_size: int
    local_world_size: int
    hbm_bytes: int  # of one rank; 0 without a GPU
    ddr_bytes: int  # of one rank
    reserve_share: float = _RESERVE_SHARE  # of either memory, that is left free
    bandwidths: Bandwidths | None = None  # None: TorchRec's, which are those of a V100 host

    @property
    def rank_bytes(self) -> int:
        """Memory of one rank where it computes."""
        return self.hbm_bytes if self.device == "cuda" else self.ddr_bytes

    def free_bytes(self, *, taken_bytes: int = 0) -> int:
        """What tables may take of `rank_bytes`: the reserve and what else lies there are off; below 0, nothing."""
        return int(self.rank_bytes * (1 - self.reserve_share)) - taken_bytes

    def topology(self, *, taken_bytes: int = 0) -> Topology:
        """TorchRec's description of what is left of the machine for tables.

        Args:
            taken_bytes: What a rank holds beside tables, where it computes.
        """
        free = max(0, self.free_bytes(taken_bytes=taken_bytes))
        cuda = self.device == "cuda"
        return Topology(
            world_size=self.world_size,
            compute_device=self.device,
            local_world_size=self.local_world_size,
            hbm_cap=free if cuda else 0,
            ddr_cap=int(self.ddr_bytes * (1 - self.reserve_share)) if cuda else free,
            **self._rates(),
        )

    def _rates(self) -> dict[str, float]:
        if self.bandwidths is None:
            return {}
        memory = "hbm_mem_bw" if self.device == "cuda" else "ddr_mem_bw"
        rates = {
            memory: self.bandwidths.memory,
            "hbm_to_ddr_mem_bw": self.bandwidths.host_memory,
            "intra_host_bw": self.bandwidths.intra_host,
            "inter_host_bw": self.bandwidths.inter_host,
        }
        return {name: rate / _MS_PER_S for name, rate in rates.items() if rate is not None}


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


def planned_hardware(file: HardwareFile, *, world_size: int) -> Hardware:
    """So many ranks of a kind of machine: a part of one host, or whole hosts.

    The ranks of a host share all of its memory, also where they are fewer than it can have.

    Args:
        file: The kind of machine.
        world_size: Ranks in all.

    Raises:
        ConfigError: no such number of ranks can be had.
    """
    of_host = file.host.ranks
    if world_size < 1:
        raise ConfigError(f"--ranks: {world_size} is no number of ranks; give 1 or more")
    if world_size > of_host and world_size % of_host:
        fewer = world_size - world_size % of_host
        raise ConfigError(
            f"--ranks: {world_size} ranks of {file.name} do not fill hosts of {of_host}; take {fewer} or"
            f" {fewer + of_host}, or up to {of_host} for a part of one host"
        )
    local = min(of_host, world_size)
    cuda = file.device == "cuda"
    return Hardware(
        device=file.device,
        world_size=world_size,
        local_world_size=local,
        hbm_bytes=int(file.memory.gib * _GIB) if cuda else 0,
        ddr_bytes=int(file.host.memory_gib * _GIB) // local,
        reserve_share=file.memory.reserve_share,
        bandwidths=Bandwidths(
            memory=file.memory.gb_per_s * _GB,
            host_memory=file.memory.host_gb_per_s * _GB if cuda else None,
            intra_host=file.intra_host.gb_per_s * _GB,
            inter_host=file.inter_host.gb_per_s * _GB,
        ),
    )
