"""Hardware: the live machine, and the topology made of a description."""

from __future__ import annotations

import os

import pytest
import torch

from configs.errors import ConfigError
from sharding.hardware import Hardware, live_hardware


def test_the_hosts_memory_is_shared_by_its_ranks() -> None:
    one = live_hardware(device=torch.device("cpu"), world_size=1, local_world_size=1)
    eight = live_hardware(device=torch.device("cpu"), world_size=8, local_world_size=4)
    assert one.ddr_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert eight.ddr_bytes == one.ddr_bytes // 4
    assert (one.hbm_bytes, eight.device, eight.world_size, eight.local_world_size) == (0, "cpu", 8, 4)


def test_hosts_of_unequal_size_are_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        live_hardware(device=torch.device("cpu"), world_size=6, local_world_size=4)
    assert str(refused.value) == "6 ranks do not divide into hosts of 4; start as many on each"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_topology_is_the_description(device: str) -> None:
    hardware = Hardware(device=device, world_size=4, local_world_size=2, hbm_bytes=2**30, ddr_bytes=2**33)  # type: ignore[arg-type]
    topology = hardware.topology()
    assert (topology.world_size, topology.local_world_size, topology.compute_device) == (4, 2, device)
    assert [entry.storage.ddr for entry in topology.devices] == [2**33] * 4
    assert [entry.storage.hbm for entry in topology.devices] == [2**30 if device == "cuda" else 0] * 4
