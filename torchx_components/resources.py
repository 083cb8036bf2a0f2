"""The named resources: machines that people rent, for `-h` of every component.

    torchx run -s slurm dist.ddp -h h100_80gb_8 -j 2x8 trainer/main.py --config configs/mlperf_dcnv2.toml

Each asks for a whole machine of its kind and for no more than the smallest offer of it has, so that the same name is
met on any cloud: cores and memory (GiB, less the 4 % that hosts keep for themselves) are the least of the offers named
beside it. The entry points `torchx.named_resources` in pyproject.toml register them, and `make install` makes those
known to TorchX; its own `aws_*` names stay.
"""

# No `from __future__ import annotations`: TorchX reads the annotations as they stand.
from functools import partial

from torchx import specs

USABLE_MEMORY = 0.96


def machine(*, cpu: int, gpu: int, memory_gib: int) -> specs.Resource:
    """A whole machine; TorchX counts memory in units of 1024^2 bytes."""
    return specs.Resource(cpu=cpu, gpu=gpu, memMB=int(memory_gib * 1024 * USABLE_MEMORY))


b200_180gb_8 = partial(machine, cpu=192, gpu=8, memory_gib=2048)  # AWS p6-b200.48xlarge, Google a4-highgpu-8g
h200_141gb_8 = partial(machine, cpu=96, gpu=8, memory_gib=1850)  # AWS p5en.48xlarge, Azure ND96isr_H200_v5
h100_80gb_8 = partial(machine, cpu=96, gpu=8, memory_gib=1800)  # AWS p5.48xlarge, Azure ND96isr_H100_v5, Lambda 8xH100
a100_80gb_8 = partial(machine, cpu=96, gpu=8, memory_gib=1152)  # AWS p4de.24xlarge, Google a2-ultragpu-8g
a100_40gb_8 = partial(machine, cpu=96, gpu=8, memory_gib=680)  # AWS p4d.24xlarge, Google a2-highgpu-8g
l4_24gb_8 = partial(machine, cpu=96, gpu=8, memory_gib=384)  # AWS g6.48xlarge, Google g2-standard-96
l4_24gb_4 = partial(machine, cpu=48, gpu=4, memory_gib=192)  # AWS g6.12xlarge, Google g2-standard-48
l4_24gb_1 = partial(machine, cpu=8, gpu=1, memory_gib=32)  # AWS g6.2xlarge, Google g2-standard-8
cpu_96 = partial(machine, cpu=96, gpu=0, memory_gib=384)  # AWS m7i.24xlarge, Azure D96s_v5: 4 GiB a core
cpu_64 = partial(machine, cpu=64, gpu=0, memory_gib=256)  # AWS m7i.16xlarge, Azure D64s_v5
cpu_32 = partial(machine, cpu=32, gpu=0, memory_gib=128)  # AWS m7i.8xlarge, Azure D32s_v5
cpu_16 = partial(machine, cpu=16, gpu=0, memory_gib=64)  # AWS m7i.4xlarge, Azure D16s_v5
