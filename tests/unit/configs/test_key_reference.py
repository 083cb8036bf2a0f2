"""The reference of keys: complete, with the defaults a run really has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from configs.command import SCORE, TRAIN, Program
from configs.key_reference import benchmark_markdown, field_meanings, help_text, key_groups, markdown, planning_markdown
from configs.schema import RunConfig
from configs.section import Section
from modules import members
from tests.unit.configs import archs
from tests.unit.configs.test_loader import sections_below

REAL_ARCHS = {kind: members.config_class(kind) for kind in members.kinds()}
KEYS = {(group.title, key.path): key for group in key_groups(archs.CLASSES) for key in group.keys}


@pytest.mark.parametrize(
    "section",
    sorted({*sections_below(RunConfig), *REAL_ARCHS.values()}, key=str),
    ids=lambda cls: f"{cls.__module__}.{cls.__name__}",
)
def test_every_field_has_a_meaning(section: type[Section]) -> None:
    names = [field.name for field in dataclasses.fields(section)]
    meanings = field_meanings(section)
    assert [name for name in names if not meanings.get(name)] == []
    assert section.__doc__
    assert not section.__doc__.startswith(f"{section.__name__}(")  # what dataclass writes where there is none


def test_a_field_without_literal_has_no_meaning() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Bare(archs.MlpConfig):
        """Inherits meanings."""

        silent: int = 1
        loud: int = 2
        """Said."""

    assert set(field_meanings(Bare)) == {"kind", "hidden", "dropout", "loud"}


@pytest.mark.parametrize(
    ("title", "path", "kind", "default", "meaning"),
    [
        ("train", "train.batch_size", "whole number", "1024", "Rows per step over all ranks."),
        ("train", "train.until.epochs", "whole number", "1", "When training ends. Passes over data.train."),
        ("train", "train.until.steps", "whole number", "none", "When training ends. Global steps."),
        ("train", "train.log_every.steps", "whole number", "50", "How often metrics are written. Global steps."),
        ("data", "data.train", "list of text", "[]", None),
        ("run", "run.device", "auto | cpu | cuda", '"auto"', None),
        ("tables.NAME", "tables.NAME.dim", "whole number", "16", None),
        ("members.NAME", "members.NAME.arch.kind", "text", "must be given", None),
        ('members.NAME.arch, kind = "mlp"', "members.NAME.arch.hidden", "list of whole number", "[64]", "Widths."),
        ('members.NAME.arch, kind = "nested"', "members.NAME.arch.exact", "true or false", "true", None),
        ('members.NAME.arch, kind = "nested"', "members.NAME.arch.width", "whole number or text", "8", None),
        (
            'members.NAME.arch, kind = "nested"',
            "members.NAME.arch.pair",
            "list of 2: whole number, number",
            "[1, 0.5]",
            None,
        ),
        ('members.NAME.arch, kind = "nested"', "members.NAME.arch.rates", "table of number", "{}", None),
        (
            'members.NAME.arch, kind = "nested"',
            "members.NAME.arch.towers.TOWER.label",
            "text",
            "none",
            "More towers. A label.",
        ),
    ],
)
def test_a_key_has_type_default_and_meaning(
    title: str, path: str, kind: str, default: str, meaning: str | None
) -> None:
    key = KEYS[title, path]
    assert (key.type, key.default) == (kind, default)
    assert meaning is None or key.meaning == meaning


def test_features_of_a_table_group_are_named() -> None:
    key = KEYS["tables.NAME", "tables.NAME.features.FEATURE.placement"]
    assert key.type.startswith("auto | data_parallel | ")


@pytest.mark.parametrize("program", [TRAIN, SCORE], ids=lambda program: program.name)
def test_help_teaches(program: Program) -> None:
    text = help_text(program, arch_classes=archs.CLASSES)
    assert text.startswith(f"{program.name}: {program.purpose}\n\nExamples:\n  {program.examples[0]}\n")
    assert len(program.examples) == 3
    assert all(f"\n  {flag.name}" in text for flag in program.flags)
    for key in KEYS.values():
        assert f"\n  {key.path}  ({key.type}; " in text
    assert "\n  train.batch_size  (whole number; default 1024)\n      Rows per step over all ranks.\n" in text
    assert "\n  members.NAME.arch.kind  (text; must be given)\n" in text


def test_markdown_keeps_its_columns() -> None:
    rows = [line for line in markdown(archs.CLASSES).splitlines() if line.startswith("| `")]
    assert len(rows) == len(KEYS)
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


def test_the_written_reference_is_current() -> None:
    written = Path(__file__).parents[3] / "docs" / "keys.md"
    assert written.read_text(encoding="utf-8") == markdown(REAL_ARCHS), "run python tools/write_key_reference.py"


def test_the_planning_reference_is_up_to_date() -> None:
    written = Path(__file__).parents[3] / "docs" / "planning_keys.md"
    assert written.read_text(encoding="utf-8") == planning_markdown(), "run python tools/write_key_reference.py"
    assert "| `features.FEATURE.mean_ids` | number | 1.0 |" in planning_markdown()


def test_the_benchmarks_reference_is_up_to_date() -> None:
    written = Path(__file__).parents[3] / "docs" / "benchmarks" / "keys.md"
    assert written.read_text(encoding="utf-8") == benchmark_markdown(), "run python tools/write_key_reference.py"
    assert "| `pools.POOL.seeds` | whole number | 1 |" in benchmark_markdown()
