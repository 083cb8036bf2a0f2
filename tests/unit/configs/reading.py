"""Short ways to read a run and to get the sentence of a refused one."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from configs.loader import read_run
from configs.schema import RunConfig
from tests.unit.configs import archs

ONE_MEMBER = '[members.deep]\narch = {kind = "mlp"}\n'


def read(text: str, *overrides: str) -> RunConfig:
    """Reads `text` as run.toml with the architectures of these tests."""
    return read_run(text, source="run.toml", overrides=overrides, resolve_arch=archs.resolve, arch_kinds=archs.KINDS)


def refusal(text: str, *overrides: str) -> str:
    """The sentence with which `text` is refused."""
    with pytest.raises(ConfigError) as refused:
        read(text, *overrides)
    assert refused.value.exit_code == 2
    return str(refused.value)


def problems(text: str, *overrides: str) -> list[str]:
    """The problems of `text` alone, one sound member put in front of it."""
    return [line.strip() for line in refusal(ONE_MEMBER + text, *overrides).splitlines()[1:]]
