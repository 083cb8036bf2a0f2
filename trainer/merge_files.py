"""merge.toml: a merge rule in a small file that a person can read, and what it was fitted on.

rule = "weights"
members = ["deep", "wide"]
weights = [0.4, 0.6]

[calibration]                                   # none: without
kind = "platt"
scale = 1.02
shift = -0.01

[fitted_on]                                     # none: written by hand, or a rule that needs no fit
folder = "predictions/valid"
...
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import tomli_w

from configs.errors import ConfigError
from modules.merge import MergeRule
from trainer import storage

FITTED_ON = "fitted_on"
_REMEDY = "correct it, or fit again with tools/merge_predictions.py"
_HEADER = "# How members' logits become one probability; tools/merge_predictions.py and score.merge_file apply it.\n"
_NUMBERS_A_LINE = 8


@dataclass(frozen=True, kw_only=True)
class FittedOn:
    """Which predictions a rule was fitted on, and what it did there."""

    folder: str
    parts: tuple[str, ...]
    num_rows: int  # of these parts
    num_rows_used: int  # evenly spaced ones
    dictionary: str  # hash of the dictionary that their ids came from
    checkpoints: tuple[str, ...]
    log_loss_mean_logit_nats: float  # of the rows used, before
    log_loss_nats: float  # of the rows used, which the rule has seen
    notes: tuple[str, ...] = ()  # how the fit went


@dataclass(frozen=True, kw_only=True)
class MergeFile:
    """What a merge.toml holds."""

    rule: MergeRule
    fitted_on: FittedOn | None


def write_merge(path: str, rule: MergeRule, fitted_on: FittedOn | None = None) -> None:
    """Writes a merge.toml; `read_merge` gives an equal rule, bit for bit."""
    body = rule.as_json()
    if fitted_on is not None:
        body[FITTED_ON] = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(fitted_on).items()
        }
    storage.write_text(path, _HEADER + _dumps(body))


def read_merge(path: str) -> MergeRule:
    """The rule of a merge.toml.

    Raises:
        ConfigError: the file is not there, not TOML, or a key or value in it does not fit.
    """
    return read_merge_file(path).rule


def read_merge_file(path: str) -> MergeFile:
    """The rule of a merge.toml and what it was fitted on.

    Raises:
        ConfigError: as `read_merge`.
    """
    if not storage.is_file(path):
        raise ConfigError(f"{path}: no such file; fit one with tools/merge_predictions.py fit")
    try:
        body = tomllib.loads(storage.read_text(path))
    except ValueError as error:  # also bytes that are no text
        raise ConfigError(f"{path}: not TOML: {error}; {_REMEDY}") from None
    try:
        fitted_on = _fitted_on(body.pop(FITTED_ON)) if FITTED_ON in body else None
        return MergeFile(rule=MergeRule.of_json(body), fitted_on=fitted_on)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; {_REMEDY}") from None


def columns_of(rule: MergeRule, members: Sequence[str], *, source: str) -> list[int]:
    """Where the rule's members are among these, in the rule's order.

    Args:
        rule: The rule.
        members: Names of the columns that there are.
        source: What has them, for the message.

    Raises:
        ConfigError: one of the rule's members is not there.
    """
    missing = [name for name in rule.members if name not in members]
    if missing:
        raise ConfigError(
            f"members: the merge rule needs {missing[0]!r}, which is not in {source}; there are {', '.join(members)}"
        )
    return [list(members).index(name) for name in rule.members]


def _fitted_on(body: Any) -> FittedOn:
    if not isinstance(body, Mapping):
        raise ValueError(f"{FITTED_ON}: {body!r} is not a table")
    values = {}
    for field in fields(FittedOn):
        if field.name not in body:
            raise ValueError(f"{FITTED_ON}.{field.name}: missing")
        values[field.name] = _typed(field.name, body[field.name], str(field.type))
    unknown = [key for key in body if key not in values]
    if unknown:
        raise ValueError(f"{FITTED_ON}.{unknown[0]}: no such key; the keys are {', '.join(values)}")
    return FittedOn(**values)


def _typed(key: str, value: Any, wanted: str) -> Any:
    kinds = {"str": (str,), "int": (int,), "float": (float, int), "tuple[str, ...]": (list,)}
    fits = isinstance(value, kinds[wanted]) and not isinstance(value, bool)
    if fits and isinstance(value, list):
        fits = all(isinstance(item, str) for item in value)
    if not fits:
        raise ValueError(f"{FITTED_ON}.{key}: {value!r} is not what it should be ({wanted})")
    return tuple(value) if isinstance(value, list) else value


def _dumps(body: Mapping[str, Any]) -> str:
    """TOML with arrays of several items a line: tomli_w puts one on each, and a curve has hundreds."""
    tables = {key: value for key, value in body.items() if isinstance(value, Mapping)}
    lines = [f"{key} = {_value(value)}" for key, value in body.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")
    items = [_value(item) for item in value]
    if len(items) <= _NUMBERS_A_LINE:
        return f"[{', '.join(items)}]"
    cut = range(0, len(items), _NUMBERS_A_LINE)
    return "[\n" + "".join(f"    {', '.join(items[first : first + _NUMBERS_A_LINE])},\n" for first in cut) + "]"
