"""What is wrong with a configuration, as sentences with the key's path and the nearest right name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError
from configs.key_types import annotation_at, field_types, literal_values, section_in
from configs.section import Section

_FIELD_AND_TEXT = re.compile(r"([\w.]+): (.+)")
_LONGEST_SHOWN = 60

Path = tuple[str | int, ...]

_WANTED = {
    "bool_type": "is not true or false",
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "string_type": "is not text; write it in double quotes",
    "tuple_type": "is not a list; write it in []",
    "list_type": "is not a list; write it in []",
    "dict_type": "is not a table; write it as {key = VALUE}",
    "dataclass_type": "is not a table; write it as {key = VALUE}",
    "missing": "missing; this key must be given",
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    path: Path
    """Names from the top to the key, list positions as numbers; empty: the file as a whole."""

    text: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}" if self.path else self.text


def config_error(source: str, problems: Iterable[Problem], *, tree: Mapping[str, Any]) -> ConfigError:
    """One error for all problems, in the order in which their keys stand in `tree`.

    Args:
        source: What was read, as `run.toml`.
        problems: At least one; the same one twice is said once.
        tree: The configuration as it was read.
    """
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: _position(tree, problem.path))
    count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    return ConfigError("\n".join([f"{source} has {count}:", *(f"  {problem}" for problem in ordered)]))


def dotted(path: Sequence[str | int]) -> str:
    """A path as it is written in TOML and in overrides: `tables.shared.dim`, `data.train[1]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else json.dumps(step, ensure_ascii=False)
            text += f".{name}" if text else name
    return text


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant: one that begins with `name`, else the most similar."""
    known = list(names)
    begun = [candidate for candidate in known if len(name) > 2 and candidate.startswith(name)]
    return next(iter(begun or difflib.get_close_matches(name, known, n=1)), None)


def unreadable_values(tree: Any, path: Path = ()) -> list[Problem]:
    """Values that TOML can hold and no key takes: dates and times, inf, nan, numbers past 64 bits."""
    if isinstance(tree, dict):
        return [problem for key, value in tree.items() for problem in unreadable_values(value, (*path, key))]
    if isinstance(tree, list):
        return [problem for index, value in enumerate(tree) for problem in unreadable_values(value, (*path, index))]
    text = None
    if isinstance(tree, float) and not abs(tree) < float("inf"):
        text = f"{tree!r} is not a finite number"
    elif isinstance(tree, int) and not -(2**63) <= tree < 2**63:
        text = "a whole number must fit in 64 bits"
    elif isinstance(tree, str):
        if any("\ud800" <= character <= "\udfff" for character in tree):
            text = f"{tree!r} is not UTF-8 text"
    elif not isinstance(tree, (bool, int, float)):
        text = f"{tree} is a date or time, which no key takes; write text in double quotes"
    return [Problem(path=path, text=text)] if text else []


def schema_problems(errors: Iterable[Mapping[str, Any]], *, root: type[Section], at: Path = ()) -> list[Problem]:
    """The failures of one validation as problems.

    Args:
        errors: As `pydantic.ValidationError.errors()` gives them.
        root: The section that was validated.
        at: Where it stands in the configuration; put in front of every path.
    """
    problems = []
    for error in errors:
        # Past the key a location may go on with the alternatives of a union, which are no keys.
        location = [step for index, step in enumerate(error["loc"]) if _is_key(root, error["loc"][: index + 1])]
        path = tuple(location)
        if error["type"] == "unexpected_keyword_argument":
            name = str(error["loc"][-1])
            problems.append(Problem(path=(*at, *error["loc"]), text=_unknown_key(name, root, error["loc"][:-1])))
        elif error["type"] == "value_error":
            problems += rule_problems(error["ctx"]["error"], at=(*at, *path))
        else:
            problems.append(Problem(path=(*at, *path), text=_sentence(error, root, path)))
    return problems


def rule_problems(error: ValueError, *, at: Path) -> list[Problem]:
    """The problems of a section's own rules: one a line, `field: text` or text about the section."""
    problems = []
    for line in str(error).splitlines():
        match = _FIELD_AND_TEXT.fullmatch(line)
        path, text = (tuple(match[1].split(".")), match[2]) if match else ((), line)
        problems.append(Problem(path=(*at, *path), text=text))
    return problems


def _is_key(root: type[Section], path: Path) -> bool:
    return annotation_at(root, path) is not None


def _unknown_key(name: str, root: type[Section], parent: Path) -> str:
    section = section_in(annotation_at(root, parent)) or root
    known = list(field_types(section))
    near = nearest(name, known)
    return f"no such key; did you mean {near!r}?" if near else f"no such key; the keys here are {', '.join(known)}"


def _sentence(error: Mapping[str, Any], root: type[Section], path: Path) -> str:
    given = shown(error["input"])
    if error["type"] == "literal_error":
        known = literal_values(annotation_at(root, path))
        near = nearest(str(error["input"]), known)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"{given} is not one of {', '.join(known)}{hint}"
    if error["type"] == "missing":
        return _WANTED["missing"]
    if error["type"] in _WANTED:
        return f"{given} {_WANTED[error['type']]}"
    message = str(error["msg"])
    return f"{given} is refused: {message[:1].lower()}{message[1:]}"


def shown(value: object) -> str:
    """A value as the user wrote it, shortened; lists and tables by their kind."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _position(tree: Any, path: Path) -> list[int]:
    """Sorts as the keys stand in the file; a key that is not there sorts as its table."""
    position = []
    for step in path:
        if isinstance(tree, Mapping) and step in tree:
            position.append(list(tree).index(str(step)))
            tree = tree[step]
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            position.append(step)
            tree = tree[step]
        else:
            break
    return position
