"""The named resources: every one is registered, whole machines, met by `-h` of every component."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path

import pytest
from torchx import specs

from torchx_components import batch, dist, resources

ROOT = Path(__file__).resolve().parents[3]
OURS = {name: value for name, value in vars(resources).items() if isinstance(value, partial)}


def test_every_machine_is_registered_under_its_name() -> None:
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entry_points["torchx.named_resources"] == {name: f"torchx_components.resources:{name}" for name in OURS}


@pytest.mark.parametrize("name", OURS)
def test_torchx_finds_it(name: str) -> None:
    assert specs.named_resources[name] == OURS[name]()
    assert specs.named_resources["aws_p4d.24xlarge"].gpu == 8  # TorchX's own stay


@pytest.mark.parametrize("name", OURS)
def test_it_is_what_its_name_says_and_no_more_than_the_machine_has(name: str) -> None:
    found, asked = OURS[name](), OURS[name].keywords
    kind, *_, count = name.split("_")
    assert (found.cpu if kind == "cpu" else found.gpu) == int(count)
    assert (found.gpu == 0) == (kind == "cpu")
    assert 0.9 * asked["memory_gib"] * 1024 < found.memMB < asked["memory_gib"] * 1024
    # Nothing that only one cloud knows: these would be met nowhere else.
    assert not found.capabilities and not found.devices


def test_an_unknown_one_is_answered_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="Did you mean `h100_80gb_8`"):
        dist.ddp("trainer/main.py", h="h100_80gb_9")


def test_training_scoring_and_preparing_take_one() -> None:
    expected = resources.l4_24gb_4()
    (trained,) = dist.ddp("trainer/main.py", h="l4_24gb_4", j="1x4").roles
    (scored,) = batch.score(checkpoint="a", output="b", h="l4_24gb_4", j="1x4").roles
    assert trained.resource == scored.resource == expected
    (prepared,) = batch.prepare("--input", "a.gz", output="b", h="cpu_16").roles
    assert prepared.resource == resources.cpu_16()
    assert f"--memory-gb {0.9 * resources.cpu_16().memMB / 1024:.2f}" in prepared.args[1]


def test_spmd_takes_as_many_ranks_as_it_has_gpus() -> None:
    (role,) = dist.spmd("trainer/main.py", h="l4_24gb_4", j="2").roles
    assert "--nnodes 2 --nproc_per_node 4" in role.args[1]
