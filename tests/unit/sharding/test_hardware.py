"""Hardware: the live machine, one to plan for, and the topology made of a description."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
import torch

from configs.errors import ConfigError
from configs.hardware_schema import AccessRate, HardwareFile, Host, Link, LookupRates, MatmulRate, Memory
from sharding.hardware import Bandwidths, Hardware, live_hardware, planned_hardware
from sharding.plan_files import made_for


def file(device: Any = "cuda", *, ranks: int = 8) -> HardwareFile:
    rate = AccessRate(id_ns=1.0)
    cuda = device == "cuda"
    return HardwareFile(
        name="box",
        device=device,
        host=Host(ranks=ranks, memory_gib=1024.0),
        memory=Memory(
            gib=80.0 if cuda else 0.0, reserve_share=0.1, gb_per_s=2_000.0, host_gb_per_s=50.0 if cuda else 0.0
        ),
        matmul={"fp32": MatmulRate(tflops=1.0)},
        lookup=LookupRates(forward=rate, backward={"sgd": rate}),
        intra_host=Link(gb_per_s=400.0),
        inter_host=Link(gb_per_s=40.0),
    )


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
def test_the_topology_is_what_is_left(device: Any) -> None:
    hardware = Hardware(
        device=device, world_size=4, local_world_size=2, hbm_bytes=1_000, ddr_bytes=10_000, reserve_share=0.25
    )
    topology = hardware.topology(taken_bytes=50)
    assert (topology.world_size, topology.local_world_size, topology.compute_device) == (4, 2, device)
    assert [entry.storage.ddr for entry in topology.devices] == [7_500 if device == "cuda" else 7_450] * 4
    assert [entry.storage.hbm for entry in topology.devices] == [700 if device == "cuda" else 0] * 4
    assert hardware.rank_bytes == (1_000 if device == "cuda" else 10_000)
    assert (
        hardware.free_bytes(taken_bytes=20_000)
        < 0
        == min(entry.storage.hbm for entry in hardware.topology(taken_bytes=20_000).devices)
    )


@pytest.mark.parametrize(("device", "memory"), [("cuda", "hbm_mem_bw"), ("cpu", "ddr_mem_bw")])
def test_bandwidths_reach_the_planner_in_bytes_per_millisecond(device: Any, memory: str) -> None:
    topology = planned_hardware(file(device), world_size=16).topology()
    assert getattr(topology, memory) == 2_000e9 / 1e3
    assert (topology.intra_host_bw, topology.inter_host_bw) == (400e9 / 1e3, 40e9 / 1e3)
    default = dataclasses.replace(planned_hardware(file(device), world_size=16), bandwidths=None).topology()
    assert topology.hbm_to_ddr_mem_bw == (50e9 / 1e3 if device == "cuda" else default.hbm_to_ddr_mem_bw)
    assert getattr(default, memory) != getattr(topology, memory)


@pytest.mark.parametrize(("world_size", "of_host"), [(1, 1), (3, 3), (8, 8), (16, 8), (24, 8)])
def test_a_part_of_a_host_or_whole_hosts(world_size: int, of_host: int) -> None:
    found = planned_hardware(file(), world_size=world_size)
    assert (found.world_size, found.local_world_size) == (world_size, of_host)
    assert (found.hbm_bytes, found.ddr_bytes, found.reserve_share) == (80 * 2**30, 1024 * 2**30 // of_host, 0.1)
    on_cpu = planned_hardware(file("cpu"), world_size=world_size)
    assert (on_cpu.hbm_bytes, on_cpu.rank_bytes) == (0, 1024 * 2**30 // of_host)


@pytest.mark.parametrize(
    ("world_size", "sentence"),
    [
        (0, "--ranks: 0 is no number of ranks; give 1 or more"),
        (-8, "--ranks: -8 is no number of ranks; give 1 or more"),
        (12, "--ranks: 12 ranks of box do not fill hosts of 8; take 8 or 16, or up to 8 for a part of one host"),
    ],
)
def test_ranks_that_cannot_be_had(world_size: int, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        planned_hardware(file(), world_size=world_size)
    assert str(refused.value) == sentence


def test_a_plan_file_does_not_speak_of_memory_and_bandwidths() -> None:
    one = planned_hardware(file(), world_size=8)
    other = dataclasses.replace(
        one,
        hbm_bytes=1,
        reserve_share=0.5,
        bandwidths=Bandwidths(memory=1.0, host_memory=None, intra_host=1.0, inter_host=1.0),
    )
    assert made_for({"a/C1": (3, 4)}, hardware=one, rows_per_rank=8) == made_for(
        {"a/C1": (3, 4)}, hardware=other, rows_per_rank=8
    )
