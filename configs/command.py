"""A program's command line: its few flags apart from the configuration's keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError
from configs.key_types import field_types, is_mapping
from configs.problems import nearest
from configs.schema import RunConfig


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of a program."""

    name: str
    """As typed, `--config`."""

    value: str = ""
    """What its value is called in the help, `FILE`; empty: it takes none."""

    meaning: str
    """One sentence for the help."""

    times: Literal["once", "often"] = "once"
    """How often it may be given."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a program says about itself."""

    name: str
    """The path it is started by."""

    purpose: str
    """What it does, in a sentence or two."""

    examples: tuple[str, ...]
    """Lines to copy."""

    flags: tuple[Flag, ...]
    """Its own flags; every other word is a key of the configuration."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line, split."""

    flags: dict[str, tuple[str, ...]]
    """The values of each flag given, in order; a flag without a value has the value ""."""

    overrides: tuple[str, ...]
    """The other words, `--section.key=value`."""

    def given(self, flag: str) -> bool:
        """Whether the flag is there."""
        return flag in self.flags

    def one(self, flag: str) -> str | None:
        """The value of the flag, None where it is not given."""
        values = self.all(flag)
        assert len(values) < 2, f"{flag} may be given often"
        return values[0] if values else None

    def all(self, flag: str) -> tuple[str, ...]:
        """Every value of the flag, in order."""
        return self.flags.get(flag, ())


CONFIG = Flag(name="--config", value="FILE", meaning="The run, as TOML; keys given as words win over it.")
HELP = Flag(name="--help", meaning="Print this text and end.")
PRINT_CONFIG = Flag(name="--print-config", meaning="Print every key with its value as TOML, and end.")
CHECKPOINT = Flag(
    name="--checkpoint",
    value="DIR",
    meaning="A checkpoint's folder, as runs/NAME/TIME/checkpoints/step_...; several, each as LABEL=DIR, in one pass.",
    times="often",
)
OUTPUT = Flag(name="--output", value="DIR", meaning="Where the predictions go; an unfinished job there goes on.")

TRAIN = Program(
    name="trainer/main.py",
    purpose="Trains all members of a run in one job on one set of sharded embedding tables.\n"
    "Without --config it trains the demo ensemble on a synthetic stream and needs no file.",
    examples=(
        "torchx run -s local_cwd dist.ddp -j 1x8 trainer/main.py",
        "python trainer/main.py --config run.toml --train.batch_size=8192 --train.until='{steps = 1000}'",
        'python trainer/main.py --members.tiny=\'{tables = "shared", arch = {kind = "mlp", hidden = [64]}}\'',
    ),
    flags=(CONFIG, HELP, PRINT_CONFIG),
)
SCORE = Program(
    name="trainer/score.py",
    purpose="Scores every row once with a checkpoint's members and writes each logit and the merged prediction.\n"
    "The same command on an unfinished folder does what is missing; several checkpoints are merged as if trained"
    " together.",
    examples=(
        "torchx run -s local_cwd dist.ddp -j 1x2 trainer/score.py --checkpoint DIR --output predictions",
        "python trainer/score.py --checkpoint DIR --output predictions --score.parts='[\"day_23\"]'",
        "python trainer/score.py --checkpoint a=DIR --checkpoint b=DIR --output predictions --merge.rule=median",
    ),
    flags=(CHECKPOINT, OUTPUT, HELP, PRINT_CONFIG),
)


def parse_command(argv: Sequence[str], *, program: Program) -> Command:
    """Splits the words after the program's name into its flags and overrides.

    Both `--flag value` and `--flag=value` are read.

    Raises:
        ConfigError: A word is neither a flag nor of the form `--section.key=value`, a flag's value
            is missing or not wanted, or a flag is given twice that may be given once.
    """
    known = {flag.name: flag for flag in program.flags}
    flags: dict[str, tuple[str, ...]] = {}
    overrides: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        word = HELP.name if word == "-h" else word
        name, equals, value = word.partition("=")
        if name in known:
            flag = known[name]
            if flag.value and not equals:
                value = _next_value(flag, words)
            if name in flags and flag.times == "once":
                raise ConfigError(f"{name}: given twice; give it once")
            if not flag.value and equals:
                raise ConfigError(f"{word}: {name} takes no value; write {name}")
            if flag.value and not value:
                raise ConfigError(f"{word}: no value; write {name} {flag.value}")
            flags[name] = (*flags.get(name, ()), value)
        else:
            _refuse_unless_override(word, words, known)
            overrides.append(word)
    return Command(flags=flags, overrides=tuple(overrides))


def _next_value(flag: Flag, words: list[str]) -> str:
    if not words or words[0].startswith("--"):
        raise ConfigError(f"{flag.name}: no value; write {flag.name} {flag.value}")
    return words.pop(0)


def _refuse_unless_override(word: str, rest: Sequence[str], known: dict[str, Flag]) -> None:
    """Raises unless `word` has the form of an override; `rest` are the words after it."""
    name, equals, _ = word.partition("=")
    if not word.startswith("--"):
        raise ConfigError(
            f"{word}: neither a flag ({', '.join(known)}) nor a key; "
            "write --section.key=VALUE, as --train.batch_size=8192"
        )
    sections = [f"--{field.name}" for field in dataclasses.fields(RunConfig)]
    if "." not in name and name not in sections:
        near = nearest(name, known) or nearest(name, sections)
        meant = _keys_ending_in(name.removeprefix("--")) or ([near] if near else [])
        hint = f"did you mean {' or '.join(meant)}?" if meant else f"the flags are {', '.join(known)}"
        raise ConfigError(f"{name}: no such flag; {hint}")
    if not equals:
        value = rest[0] if rest and not rest[0].startswith("--") else "VALUE"
        raise ConfigError(f"{word}: no value; write key and value as one word, {word}={value}")


def _keys_ending_in(name: str) -> list[str]:
    """The keys of that name in the sections that every run has: `seed` -> `--run.seed`, `--data.seed`."""
    return [
        f"--{section}.{name}"
        for section, annotation in field_types(RunConfig).items()
        if not is_mapping(annotation) and name in field_types(annotation)
    ]
