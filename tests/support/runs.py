"""Small runs for tests."""

from __future__ import annotations

from pathlib import Path

from configs.loader import read_run
from configs.schema import RunConfig
from modules import members

SMALL_PATH = Path(__file__).with_name("small.toml")
SMALL = SMALL_PATH.read_text()


def small_run(*overrides: str, text: str = SMALL) -> RunConfig:
    """The run of small.toml with overrides: four members, 26 features, tables of at most 62 rows."""
    return read_run(
        text,
        source="small.toml",
        overrides=overrides,
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )


def placed(placement: str) -> tuple[str, str]:
    """Overrides that put all tables under one placement."""
    return (f"--tables.shared.placement={placement}", f"--tables.own.placement={placement}")


def without(*names: str, text: str = SMALL) -> str:
    """The run of small.toml without some of its members."""
    blocks = text.split("[members.")
    kept = [block for block in blocks[1:] if block.split("]")[0] not in names]
    return "[members.".join([blocks[0], *kept])
