"""The worked cases: each run fits its outline, and its header's command names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.planned_cases import run_of
from trainer.planning.byte_sum import byte_sum
from trainer.planning.data_facts import data_facts

ROOT = Path(__file__).resolve().parents[4]
CASES = sorted((ROOT / "configs" / "cases").glob("*.toml"))
TABLES_GIB = {
    "ads": 1170,
    "news": 0.444,
    "shop": 54,
}  # with the state of their rule, as docs/capacity_cases.md has them


def test_none_is_forgotten() -> None:
    assert [path.stem for path in CASES] == sorted(TABLES_GIB)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_case_is_whole(path: Path) -> None:
    text = path.read_text()
    config = run_of(text=text)
    facts = data_facts(config, path=str(ROOT / "configs" / "outlines" / path.name))
    found = byte_sum(config, features=facts.features, purpose="train", device="cuda")
    assert found.table_bytes / 2**30 == pytest.approx(TABLES_GIB[path.stem], rel=0.05)
    header = text[: text.index("[")]
    named = re.findall(r"configs/\S+\.toml", header)
    assert f"configs/cases/{path.name}" in named
    assert all((ROOT / name).is_file() for name in named)
