"""The door of the configuration: TOML text and overrides in, a checked RunConfig out, and back."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import TypeAdapter, ValidationError

from configs.benchmark_schema import Benchmark
from configs.errors import ConfigError
from configs.hardware_schema import HardwareFile
from configs.outline_schema import DataOutline
from configs.overrides import apply_overrides
from configs.problems import Problem, config_error, rule_problems, schema_problems, shown, unreadable_values
from configs.schema import Member, RunConfig, TableGroup
from configs.section import ArchConfig, Section
from configs.table_schema import TableSchema

_AnySection = TypeVar("_AnySection", bound=Section)

# An array as tomli_w writes it, an item a line; our arrays hold numbers and strings, never arrays.
_TALL_ARRAY = re.compile(r"= \[\n((?:    [^\n]*,\n)+)\]")
# Stands in for a member's architecture while the rest of the configuration is checked.
_ANY_ARCH = {"kind": "any"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Checked:
    """What validation of one section gave: the section, or its problems."""

    section: Any
    problems: list[Problem]


def config_text(path: str, *, folder: str = ".") -> str:
    """The text of a configuration file on this machine's disk; `folder` of this one has those to name instead.

    Raises:
        ConfigError: There is no such file, or it is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        here = sorted((Path(__file__).parent / folder).glob("*.toml"))
        names = ", ".join(os.path.relpath(file) for file in here)
        raise ConfigError(f"{path}: no such file" + (f"; there are {names}" if names else "")) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a TOML file") from None


def read_run(
    text: str,
    *,
    source: str,
    overrides: Sequence[str] = (),
    resolve_arch: Callable[[str], type[ArchConfig]],
    arch_kinds: Sequence[str],
) -> RunConfig:
    """Reads a run: defaults < `text` < `overrides`.

    Args:
        text: TOML.
        source: What to call it in sentences, as `run.toml`.
        overrides: Words `--section.key=value`.
        resolve_arch: A kind's `Config` class; raises `KeyError` or `ImportError` where it has none.
        arch_kinds: The kinds to name when a member's is not known.

    Raises:
        ConfigError: The text is not TOML, an override is malformed, or the configuration has
            problems; then all of them are in the message, one a line.
    """
    tree = apply_overrides(_parse(text, source), overrides)
    unreadable = unreadable_values(tree)
    # As JSON: strict validation of Python objects would refuse a list where a tuple is wanted.
    plain = _with_none_at(tree, {problem.path for problem in unreadable})
    archs = _read_archs(plain, resolve_arch=resolve_arch, arch_kinds=arch_kinds)
    run = _validate(RunConfig, _without_archs(plain))
    problems = [problem for arch in archs.values() for problem in arch.problems] + run.problems
    if run.problems:
        problems += _rules_across_sections(plain)
    if problems := _unreadable_first(unreadable, problems):
        raise config_error(f"{source} with overrides" if overrides else source, problems, tree=tree)
    config: RunConfig = run.section
    members = {name: dataclasses.replace(config.members[name], arch=arch.section) for name, arch in archs.items()}
    return dataclasses.replace(config, members=members)


def read_table_schema(path: str) -> TableSchema:
    """Reads what the columns of a table are, as the files of configs/tables/ say it.

    Raises:
        ConfigError: There is no such file, it is not TOML, or it has problems; then all of them are in the message, one
            a line.
    """
    return _read_file(TableSchema, path, folder="tables")


def table_schema_of(table: Mapping[str, Any], *, source: str) -> TableSchema:
    """A table's schema from plain values, as the manifest of prepared data keeps it.

    Args:
        table: The keys.
        source: What to call it in sentences.

    Raises:
        ConfigError: It has problems; all of them are in the message.
    """
    checked = _validate(TableSchema, dict(table))
    if checked.problems:
        raise config_error(source, checked.problems, tree={})
    schema: TableSchema = checked.section
    return schema


def read_hardware(path: str) -> HardwareFile:
    """Reads a machine to plan for, as the files of configs/hardware/ describe it.

    Raises:
        ConfigError: There is no such file, it is not TOML, or it has problems; then all of them are in the message, one
            a line.
    """
    return _read_file(HardwareFile, path, folder="hardware")


def read_outline(path: str) -> DataOutline:
    """Reads what a click log holds, in numbers, as the files of configs/outlines/ have it.

    Raises:
        ConfigError: As of `read_hardware`.
    """
    return _read_file(DataOutline, path, folder="outlines")


def read_benchmark(path: str) -> Benchmark:
    """Reads a data set, what is trained on it and how that is merged, as the files of configs/benchmarks/ have it.

    Raises:
        ConfigError: As of `read_hardware`.
    """
    return _read_file(Benchmark, path, folder="benchmarks")


def _read_file(section: type[_AnySection], path: str, *, folder: str) -> _AnySection:
    source = os.path.basename(path)
    tree = _parse(config_text(path, folder=folder), source)
    unreadable = unreadable_values(tree)
    checked = _validate(section, _with_none_at(tree, {problem.path for problem in unreadable}))
    if problems := _unreadable_first(unreadable, checked.problems):
        raise config_error(source, problems, tree=tree)
    assert isinstance(checked.section, section)
    return checked.section


def dump_hardware(hardware: HardwareFile) -> str:
    """The machine as TOML; `read_hardware` gives an equal object."""
    return _TALL_ARRAY.sub(_on_one_line, tomli_w.dumps(_plain(hardware)))


def read_arch(
    table: Mapping[str, Any],
    *,
    source: str,
    resolve_arch: Callable[[str], type[ArchConfig]],
    arch_kinds: Sequence[str],
) -> ArchConfig:
    """Reads one architecture from plain values, as they stand under `arch` in a configuration.

    Args:
        table: Its kind and keys.
        source: What to call it in sentences.
        resolve_arch: As of `read_run`.
        arch_kinds: As of `read_run`.

    Raises:
        ConfigError: It has problems; all of them are in the message.
    """
    (checked,) = _read_archs(
        {"members": {"member": {"arch": dict(table)}}}, resolve_arch=resolve_arch, arch_kinds=arch_kinds
    ).values()
    if checked.problems:
        raise config_error(source, checked.problems, tree={})
    arch: ArchConfig = checked.section
    return arch


def dump_run(config: RunConfig) -> str:
    """The configuration as TOML with every key that has a value; `read_run` gives an equal object."""
    return _TALL_ARRAY.sub(_on_one_line, tomli_w.dumps(_plain(config)))


def _on_one_line(array: re.Match[str]) -> str:
    items = [line[4:-1] for line in array[1].split("\n")[:-1]]
    return f"= [{', '.join(items)}]"


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        reason, _, place = str(error).partition(" (at ")
        found = re.search(r"line (\d+), column (\d+)", place)
        lines = text.split("\n")
        line, column = found.groups() if found else (str(len(lines)), str(len(lines[-1]) + 1))
        raise ConfigError(f"{source}: not TOML at line {line}, column {column}: {reason}; correct that line") from None


def _unreadable_first(unreadable: list[Problem], problems: list[Problem]) -> list[Problem]:
    """Both, without what validation says of the None that stands for an unreadable value."""
    known = {problem.path for problem in unreadable}
    rest = [problem for problem in problems if not any(problem.path[: len(path)] == path for path in known)]
    return unreadable + rest


def _with_none_at(tree: Any, paths: set[tuple[str | int, ...]], at: tuple[str | int, ...] = ()) -> Any:
    """A copy of the tree that JSON can hold: None at each of the paths."""
    if isinstance(tree, dict):
        return {key: _with_none_at(value, paths, (*at, key)) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_none_at(value, paths, (*at, index)) for index, value in enumerate(tree)]
    return None if at in paths else tree


def _arch_tables(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each member's arch table, empty where it is not given; members without the right form are left out."""
    members = tree.get("members")
    if not isinstance(members, dict):
        return {}
    return {
        name: member.get("arch", {})
        for name, member in members.items()
        if isinstance(member, dict) and isinstance(member.get("arch", {}), dict)
    }


def _without_archs(tree: dict[str, Any]) -> dict[str, Any]:
    """A copy with a stand-in for each arch table, which its own class validates."""
    tables = _arch_tables(tree)
    if not tables:
        return tree
    members = tree["members"]
    return {**tree, "members": members | {name: members[name] | {"arch": _ANY_ARCH} for name in tables}}


def _read_archs(
    tree: dict[str, Any], *, resolve_arch: Callable[[str], type[ArchConfig]], arch_kinds: Sequence[str]
) -> dict[str, _Checked]:
    """Each member's architecture, validated by the class of its kind."""
    checked = {}
    for name, table in _arch_tables(tree).items():
        at: tuple[str | int, ...] = ("members", name, "arch")
        try:
            cls = _arch_class(table.get("kind"), resolve_arch=resolve_arch, arch_kinds=arch_kinds)
            checked[name] = _validate(cls, table, at=at)
        except ConfigError as error:
            checked[name] = _Checked(section=None, problems=[Problem(path=(*at, "kind"), text=str(error))])
    return checked


def _arch_class(
    kind: object, *, resolve_arch: Callable[[str], type[ArchConfig]], arch_kinds: Sequence[str]
) -> type[ArchConfig]:
    choose = f"choose one of {', '.join(arch_kinds)}"
    if kind is None:
        raise ConfigError(f"missing; {choose}")
    if not isinstance(kind, str):
        raise ConfigError(f"{shown(kind)} is not text; {choose}")
    if not all(part.isidentifier() for part in kind.split(".")):
        raise ConfigError(f"{kind!r} is not a member; {choose}")
    try:
        return resolve_arch(kind)
    except (KeyError, ImportError) as error:
        if "." in kind or kind in arch_kinds:
            raise ConfigError(f"{kind!r} cannot be imported ({error}); correct it, or {choose}") from None
        raise ConfigError(f"{kind!r} is not a member; {choose}") from None


def _validate(section: type[Section], table: dict[str, Any], at: tuple[str | int, ...] = ()) -> _Checked:
    """Validates strictly: no number from text, no number from `true`."""
    try:
        return _Checked(section=TypeAdapter(section).validate_json(json.dumps(table), strict=True), problems=[])
    except ValidationError as error:
        errors = error.errors(include_url=False)
        return _Checked(section=None, problems=schema_problems(errors, root=section, at=at))


def _rules_across_sections(tree: dict[str, Any]) -> list[Problem]:
    """What RunConfig's own rules say when a problem below kept validation from asking them.

    Those rules read the names of tables and members, a member's tables and its copies, so a run
    with these alone is asked.
    """
    tables, members = tree.get("tables", {}), tree.get("members", {})
    if not (isinstance(tables, dict) and isinstance(members, dict)):
        return []
    groups = {name: TableGroup() for name in tables}
    try:
        RunConfig(tables=groups, members={name: _member_outline(table) for name, table in members.items()})
    except ValueError as error:
        return rule_problems(error, at=())
    return []


def _member_outline(table: object) -> Member:
    given = table if isinstance(table, dict) else {}
    tables, copies = given.get("tables"), given.get("copies")
    return Member(
        arch=ArchConfig(**_ANY_ARCH),
        tables=tables if isinstance(tables, str) else "shared",
        copies=copies if type(copies) is int and copies > 0 else 1,
    )


def _plain(value: Any) -> Any:
    """Sections as dicts without what TOML cannot say (None) or need not say (an empty mapping)."""
    if isinstance(value, Section):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(entry) for name, entry in fields.items() if entry is not None and entry != {}}
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
