"""Every key of a run with its type, default and meaning: `--help` and docs/keys.md; and those of planning's files."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.benchmark_schema import Benchmark
from configs.command import Program
from configs.hardware_schema import HardwareFile
from configs.key_types import REQUIRED, field_types, is_mapping, section_in, type_in_words, value_in_words
from configs.outline_schema import DataOutline
from configs.schema import RunConfig
from configs.section import ArchConfig, Section

ARCH_PATH = "members.NAME.arch"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key."""

    path: str
    """Dotted, as `tables.NAME.dim`."""

    type: str
    """In words, as `whole number`."""

    default: str
    """As TOML, or in words where it cannot be written."""

    meaning: str
    """The docstring literal under its field."""


@dataclass(frozen=True, kw_only=True)
class KeyGroup:
    """The keys of a section, its sub-sections' included."""

    title: str
    """The section's path, or `members.NAME.arch, kind = "mlp"`."""

    meaning: str
    """The first line of its class's docstring."""

    keys: tuple[Key, ...]
    """In the order of the schema."""


def field_meanings(section: type[Section]) -> dict[str, str]:
    """The docstring literal under each field, inherited fields included, by field name.

    Fields without one are not in the mapping. The class's source must be at hand.
    """
    meanings: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(node, ast.ClassDef)
        for above, below in zip(node.body, node.body[1:], strict=False):
            if not (isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                meanings[above.target.id] = inspect.cleandoc(str(below.value.value))
    return meanings


def key_groups(arch_classes: Mapping[str, type[ArchConfig]]) -> tuple[KeyGroup, ...]:
    """Every key of a run, grouped by section, in the order of the schema.

    Args:
        arch_classes: The `Config` of each member kind; their groups follow that of `members`.
    """
    types = field_types(RunConfig)
    groups = []
    for field in dataclasses.fields(RunConfig):
        path = f"{field.name}.NAME" if is_mapping(types[field.name]) else field.name
        section = section_in(types[field.name])
        assert section is not None
        default = None if is_mapping(types[field.name]) else _default(field)
        keys = tuple(_keys(section, path=path, instance=default))
        groups.append(KeyGroup(title=path, meaning=_first_line(section), keys=keys))
        if field.name == "members":
            groups += [
                KeyGroup(
                    title=f'{ARCH_PATH}, kind = "{kind}"',
                    meaning=_first_line(cls),
                    keys=tuple(
                        key for key in _keys(cls, path=ARCH_PATH, instance=None) if not key.path.endswith(".kind")
                    ),
                )
                for kind, cls in arch_classes.items()
            ]
    return tuple(groups)


def help_text(program: Program, *, arch_classes: Mapping[str, type[ArchConfig]]) -> str:
    """The text of `--help`: what the program does, lines to copy, its flags, every key."""
    lines = [f"{program.name}: {program.purpose}", "", "Examples:"]
    lines += [f"  {example}" for example in program.examples]
    lines += ["", "Flags:"]
    names = [f"{flag.name} {flag.value}".strip() for flag in program.flags]
    width = max(len(name) for name in names)
    lines += [f"  {name:<{width}}  {flag.meaning}" for name, flag in zip(names, program.flags, strict=True)]
    lines += ["", "Keys: in the file as TOML, or as a word --section.key=VALUE, which wins over the file."]
    for group in key_groups(arch_classes):
        lines += ["", f"[{group.title}]  {group.meaning}"]
        for key in group.keys:
            lines.append(f"  {key.path}  ({key.type}; {_default_clause(key.default)})")
            lines += [f"      {line}" for line in key.meaning.splitlines()]
    return "\n".join(lines) + "\n"


def markdown(arch_classes: Mapping[str, type[ArchConfig]]) -> str:
    """The text of docs/keys.md: one table a section."""
    lines = [
        "# Every key of a run",
        "",
        "Written by `python tools/write_key_reference.py` from the docstrings of `configs/schema.py` and",
        "`modules/members/`; edit those.",
        "",
        "A key stands in the run's TOML file or on the command line as `--section.key=VALUE`, which wins.",
        "A key that is not given has its default. `NAME` is a name of your choice.",
    ]
    for group in key_groups(arch_classes):
        lines += ["", f"## {group.title}", "", group.meaning, ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{key.path}` | {_cell(key.type)} | {_cell(key.default)} | {_cell(key.meaning)} |" for key in group.keys
        ]
    return "\n".join(lines) + "\n"


def planning_markdown() -> str:
    """The text of docs/planning_keys.md: the files that tools/plan_capacity.py reads beside a run's."""
    return _reference(
        "Every key of a hardware file and of an outline",
        sources="`configs/hardware_schema.py` and\n`configs/outline_schema.py`",
        purpose="[capacity.md](capacity.md)",
        sections={"Hardware files, configs/hardware": HardwareFile, "Outlines, configs/outlines": DataOutline},
    )


def benchmark_markdown() -> str:
    """The text of docs/benchmarks/keys.md: the files that tools/run_benchmark.py reads beside a run's."""
    return _reference(
        "Every key of a benchmark",
        sources="`configs/benchmark_schema.py`",
        purpose="[README.md](README.md)",
        sections={"Benchmarks, configs/benchmarks": Benchmark},
    )


def _reference(title: str, *, sources: str, purpose: str, sections: Mapping[str, type[Section]]) -> str:
    lines = [
        f"# {title}",
        "",
        f"Written by `python tools/write_key_reference.py` from the docstrings of {sources}; edit"
        f" {'those' if len(sections) > 1 else 'that'}. What they are for: {purpose}.",
    ]
    for heading, section in sections.items():
        lines += ["", f"## {heading}", "", _first_line(section), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{key.path.removeprefix('.')}` | {_cell(key.type)} | {_cell(key.default)} | {_cell(key.meaning)} |"
            for key in _keys(section, path="", instance=None)
        ]
    return "\n".join(lines) + "\n"


def _keys(section: type[Section], *, path: str, instance: object, about: str = "") -> Iterator[Key]:
    """The keys of a section and of those below it.

    Args:
        section: The class.
        path: Where it stands.
        instance: Where it has one, its defaults are those of this object, else the class's.
        about: Meaning of the key that holds the section; put in front of every key's own.
    """
    types = field_types(section)
    meanings = field_meanings(section)
    for field in dataclasses.fields(section):
        annotation = types[field.name]
        default = getattr(instance, field.name) if instance is not None else _default(field)
        name = f"{path}.{field.name}"
        meaning = f"{about} {meanings[field.name]}".strip()
        below = section_in(annotation)
        if below is None:
            yield Key(path=name, type=type_in_words(annotation), default=value_in_words(default), meaning=meaning)
        elif is_mapping(annotation):
            one = f"{field.name[:-3]}y" if field.name.endswith("ies") else field.name.removesuffix("s")
            entry = f"{name}.{one.upper()}"
            yield from _keys(below, path=entry, instance=None, about=meaning)
        else:
            known = default if isinstance(default, Section) else None
            yield from _keys(below, path=name, instance=known, about=meaning)


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _default_clause(default: str) -> str:
    return default if default == REQUIRED else f"default {default}"


def _first_line(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().partition("\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
