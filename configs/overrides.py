"""Words of the command line, `--section.key=value`, put over the tree of a configuration file."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Sequence
from typing import Any

from configs.errors import ConfigError


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Returns a copy of `tree` with every override in it; a later word wins over an earlier one.

    An override replaces the value at its key: `--members.tiny={...}` the whole member,
    `--members.tiny.arch.kind=mlp` that key alone. Tables on the way are made.

    Args:
        tree: The file as nested mappings; it is not changed.
        overrides: Words such as `--train.batch_size=8192`. The value is read as TOML; what is not
            TOML is text, so `--run.name=first` needs no quotes.

    Raises:
        ConfigError: A word is not of that form, or its key lies below a value that is no table.
    """
    result = copy.deepcopy(tree)
    for word in overrides:
        key, value = _split(word)
        path = _key_path(word, key)
        table = result
        for depth, name in enumerate(path[:-1], start=1):
            below = table.setdefault(name, {})
            if not isinstance(below, dict):
                parent = ".".join(path[:depth])
                raise ConfigError(f"{word}: {parent} is not a table, so it has no keys; write --{parent}=VALUE")
            table = below
        table[path[-1]] = _read_value(word, key, value)
    return result


def _split(word: str) -> tuple[str, str]:
    if not word.startswith("--"):
        raise ConfigError(f"{word}: not a key; write --section.key=VALUE, as --train.batch_size=8192")
    key, equals, value = word.removeprefix("--").partition("=")
    if not equals:
        raise ConfigError(f"{word}: no value; write key and value as one word, --{key}=VALUE")
    return key, value


def _key_path(word: str, key: str) -> list[str]:
    """The names of a dotted key, quoted ones included: `a."b c"` -> ["a", "b c"]."""
    try:
        node: Any = tomllib.loads(f"{key} = 0")
    except ValueError:
        node = {}
    path = []
    while isinstance(node, dict) and len(node) == 1:
        ((name, node),) = node.items()
        path.append(name)
    if not path or node != 0:
        raise ConfigError(f"{word}: {key!r} is not a key; write --section.key=VALUE, as --train.batch_size=8192")
    return path


def _read_value(word: str, key: str, value: str) -> Any:
    try:
        parsed = tomllib.loads(f"v = {value}")
    except ValueError as error:
        # Such text can only be a list or table gone wrong; as plain text it would fail further away.
        if value.startswith(("[", "{")):
            raise ConfigError(
                f"{word}: the value is not TOML ({_reason(error)}); inside [] and {{}} text needs double quotes, "
                f"and the shell wants single quotes around the word: '--{key}={_example(value)}'"
            ) from None
        return value
    # More keys than one: a line break in the value started a second line of TOML.
    return parsed["v"] if len(parsed) == 1 else value


def _reason(error: ValueError) -> str:
    return str(error).split(" (at ")[0]


def _example(value: str) -> str:
    return '["day_0"]' if value.startswith("[") else '{kind = "mlp"}'
