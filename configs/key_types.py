"""What a key may hold, read from the annotations of the sections, and said in plain words."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from configs.section import Section

REQUIRED = "must be given"
_SCALARS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def field_types(section: type[Section]) -> dict[str, Any]:
    """The resolved annotation of each field, by field name."""
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def choices(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union without None; of any other annotation itself alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(kind for kind in get_args(annotation) if kind is not type(None))
    return (annotation,)


def is_mapping(annotation: Any) -> bool:
    """Whether the key holds a table with names of the user's choice."""
    return any(get_origin(kind) is dict for kind in choices(annotation))


def section_in(annotation: Any) -> type[Section] | None:
    """The section a key holds, or each entry of its mapping holds; None where it holds none."""
    for kind in choices(annotation):
        inner = get_args(kind)[1] if get_origin(kind) is dict else kind
        if isinstance(inner, type) and issubclass(inner, Section):
            return inner
    return None


def annotation_at(root: type[Section], path: Sequence[str | int]) -> Any:
    """The annotation of the key at `path` below `root`, None where there is no such key."""
    annotation: Any = root
    for step in path:
        (kind, *_) = choices(annotation)
        arguments = get_args(kind)
        if isinstance(kind, type) and issubclass(kind, Section):
            annotation = field_types(kind).get(str(step))
        elif get_origin(kind) is dict:
            annotation = arguments[1]
        elif get_origin(kind) in (tuple, list) and isinstance(step, int):
            annotation = arguments[0] if arguments[-1] is ... or get_origin(kind) is list else arguments[step]
        else:
            return None
    return annotation


def literal_values(annotation: Any) -> list[str]:
    """The values of the `Literal` in an annotation."""
    return [str(value) for kind in choices(annotation) if get_origin(kind) is Literal for value in get_args(kind)]


def type_in_words(annotation: Any) -> str:
    """An annotation as a user reads it: `list of text`, `auto | cpu | cuda`."""
    return " or ".join(_one_type(kind) for kind in choices(annotation))


def _one_type(kind: Any) -> str:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " | ".join(str(value) for value in arguments)
    if get_origin(kind) is tuple and arguments[-1] is not ...:
        return f"list of {len(arguments)}: {', '.join(type_in_words(item) for item in arguments)}"
    if get_origin(kind) in (tuple, list):
        return f"list of {type_in_words(arguments[0])}"
    if get_origin(kind) is dict:
        return f"table of {type_in_words(arguments[1])}"
    return _SCALARS.get(kind, "table")


def value_in_words(value: object) -> str:
    """A default as it would be written in TOML; `none` for None."""
    if value is dataclasses.MISSING:
        return REQUIRED
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(value_in_words(item) for item in value)}]"
    # JSON writes text, numbers and booleans as TOML does.
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
