"""A program's command line: its flags, the overrides, and how other words are refused."""

from __future__ import annotations

import pytest

from configs.command import SCORE, TRAIN, Program, parse_command
from configs.errors import ConfigError


@pytest.mark.parametrize("words", [["--config", "a=b.toml"], ["--config=a=b.toml"]])
def test_flags_and_overrides_are_told_apart(words: list[str]) -> None:
    command = parse_command(["--run.seed=3", *words, "--help", "--members={}"], program=TRAIN)
    assert command.overrides == ("--run.seed=3", "--members={}")
    assert command.one("--config") == "a=b.toml"
    assert command.given("--help")
    assert not command.given("--print-config")
    assert command.one("--print-config") is None


def test_each_program_has_its_flags() -> None:
    command = parse_command(["--checkpoint", "a=x", "--output", "o"], program=SCORE)
    assert (command.one("--checkpoint"), command.one("--output"), command.one("--config")) == ("a=x", "o", None)


def test_some_flags_may_be_given_often() -> None:
    words = ["--checkpoint", "b", "--run.seed=3", "--checkpoint=a=x", "--output", "o"]
    command = parse_command(words, program=SCORE)
    assert (command.all("--checkpoint"), command.all("--output"), command.all("--help")) == (("b", "a=x"), ("o",), ())
    with pytest.raises(ConfigError) as refused:
        parse_command(["--output", "a", "--output=b"], program=SCORE)
    assert str(refused.value) == "--output: given twice; give it once"


@pytest.mark.parametrize("program", [TRAIN, SCORE])
def test_the_short_word_for_help(program: Program) -> None:
    command = parse_command(["-h", "--run.seed=3"], program=program)
    assert command.given("--help") and not command.given("-h")
    assert command.overrides == ("--run.seed=3",)
    with pytest.raises(ConfigError) as refused:
        parse_command(["-h", "--help"], program=program)
    assert str(refused.value) == "--help: given twice; give it once"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--run.seed", "3"], "--run.seed: no value; write key and value as one word, --run.seed=3"),
        (["--run.seed"], "--run.seed: no value; write key and value as one word, --run.seed=VALUE"),
        (["--run.seed", "--help"], "--run.seed: no value; write key and value as one word, --run.seed=VALUE"),
        (
            ["run.toml"],
            "run.toml: neither a flag (--config, --help, --print-config) nor a key; "
            "write --section.key=VALUE, as --train.batch_size=8192",
        ),
        (["--confg", "x"], "--confg: no such flag; did you mean --config?"),
        (["--confg=x"], "--confg: no such flag; did you mean --config?"),
        (["--print=x"], "--print: no such flag; did you mean --print-config?"),
        (["--meber={}"], "--meber: no such flag; did you mean --members?"),
        (["--batch_size=3"], "--batch_size: no such flag; did you mean --train.batch_size or --score.batch_size?"),
        (["--zzz=1"], "--zzz: no such flag; the flags are --config, --help, --print-config"),
        (["--checkpoint", "x"], "--checkpoint: no value; write key and value as one word, --checkpoint=x"),
        (["--config"], "--config: no value; write --config FILE"),
        (["--config", "--help"], "--config: no value; write --config FILE"),
        (["--config="], "--config=: no value; write --config FILE"),
        (["--config=a", "--config", "b"], "--config: given twice; give it once"),
        (["--help=1"], "--help=1: --help takes no value; write --help"),
    ],
)
def test_other_words_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_command(words, program=TRAIN)
    assert str(refused.value) == sentence
