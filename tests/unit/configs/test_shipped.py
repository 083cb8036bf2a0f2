"""Every shipped configuration loads, and the command in its header starts it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from configs.command import CONFIG, TRAIN, parse_command
from configs.loader import config_text, dump_run, read_run
from modules import members
from torchx_components.dist import ddp

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "configs").glob("*.toml"))


def test_none_is_forgotten():
    assert [path.stem for path in SHIPPED] == ["criteo_kaggle_sample", "demo"]


def _read(text: str, *overrides: str):
    return read_run(
        text, source="run", overrides=overrides, resolve_arch=members.config_class, arch_kinds=members.kinds()
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_loads_and_survives_a_round_trip(path):
    config = _read(config_text(str(path)))
    assert config.run.name == path.stem
    assert _read(dump_run(config)) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_command_in_its_header_starts_it(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    (line,) = [line for line in header if re.match(r"#\s+torchx run .*trainer/main\.py", line)]
    words = shlex.split(line.lstrip("# "))
    assert words[:5] == ["torchx", "run", "-s", "local_cwd", "dist.ddp"]
    assert words[5] == "-j"
    (role,) = ddp(*words[7:], j=words[6]).roles
    assert "torchrun" in role.args[1] and role.args[1].rstrip().endswith(" ".join(words[7:]))
    command = parse_command(words[8:], program=TRAIN)
    assert command.one(CONFIG.name) == f"configs/{path.name}"
    _read(config_text(str(ROOT / "configs" / path.name)), *command.overrides)
