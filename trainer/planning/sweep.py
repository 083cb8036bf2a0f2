"""Sweeps: `KEY=V1,V2` words of the command line, and the ensembles that they make of one configuration."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from configs.errors import ConfigError
from configs.schema import RunConfig
from trainer.planning.data_facts import DataFacts
from trainer.planning.study import Variant

Axes = Mapping[str, Sequence[str]]
_EXAMPLE = "--sweep members.deep.copies=1,2,4"
_OPENING, _CLOSING = "[{", "]}"


def read_sweeps(words: Sequence[str]) -> dict[str, list[str]]:
    """Key -> its values as text, in the order given.

    Raises:
        ConfigError: a word has another form, a key comes twice, or a value does.
    """
    axes: dict[str, list[str]] = {}
    for word in words:
        key, equals, rest = word.partition("=")
        key = key.removeprefix("--").strip()
        values = [value.strip() for value in split_values(rest)]
        if not equals or not key or not all(values):
            raise ConfigError(f"--sweep: {word!r} is not of the form KEY=V1,V2; write it as {_EXAMPLE}")
        if key in axes:
            raise ConfigError(f"--sweep: {key} is given twice; name all its values in one")
        doubled = next((value for value in values if values.count(value) > 1), None)
        if doubled:
            raise ConfigError(f"--sweep: {key} has {doubled} twice; name it once")
        axes[key] = values
    return axes


def split_values(text: str) -> list[str]:
    """Cuts at commas, those within brackets, braces and quotes left alone."""
    values, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in _OPENING) - (char in _CLOSING)
        if char == "," and not depth and not quote:
            values.append("")
        else:
            values[-1] += char
    return values


def variants(
    axes: Axes, *, read: Callable[[Sequence[str]], RunConfig], facts: Callable[[RunConfig], DataFacts]
) -> list[Variant]:
    """Every combination, the last key fastest.

    Args:
        axes: Key of the run -> its values.
        read: The configuration with further words put over it.
        facts: The data of a configuration.

    Raises:
        ConfigError: a combination is no run; its swept values are named.
    """
    made = []
    for values in itertools.product(*axes.values()):
        swept = dict(zip(axes, values, strict=True))
        try:
            config = read([f"--{key}={value}" for key, value in swept.items()])
        except ConfigError as error:
            if not swept:
                raise
            told = ", ".join(f"{key}={value}" for key, value in swept.items())
            raise ConfigError(f"--sweep: {told}: {error}") from None
        made.append(
            Variant(swept={key: plain(value) for key, value in swept.items()}, config=config, data=facts(config))
        )
    return made


def plain(text: str) -> Any:
    """A value as TOML reads it; text that is no TOML stays text."""
    try:
        read = tomllib.loads(f"v = {text}")
    except ValueError:
        return text
    return read["v"] if len(read) == 1 else text
