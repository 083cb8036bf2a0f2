"""Overrides: where a value lands, how it is read, and how a malformed word is refused."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from configs.overrides import apply_overrides


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--a.b=3"], {"a": {"b": 3}}),
        (["--a.b=3", "--a.b=4", "--a.c=5"], {"a": {"b": 4, "c": 5}}),
        (["--a.b=1e-3"], {"a": {"b": 0.001}}),
        (["--a.b=true"], {"a": {"b": True}}),
        (["--a.b=True"], {"a": {"b": "True"}}),
        (["--a.b=mean_logit"], {"a": {"b": "mean_logit"}}),
        (['--a.b="3"'], {"a": {"b": "3"}}),
        (["--a.b="], {"a": {"b": ""}}),
        (["--a.b=x=y"], {"a": {"b": "x=y"}}),
        (["--a.b=s3://bucket/day 0#1"], {"a": {"b": "s3://bucket/day 0#1"}}),
        (["--a.b=1\nc = 2"], {"a": {"b": "1\nc = 2"}}),
        (['--a.b=["x", "y"]'], {"a": {"b": ["x", "y"]}}),
        (['--a={b = {c = "d"}}'], {"a": {"b": {"c": "d"}}}),
        (['--a."b.c d".e=1'], {"a": {"b.c d": {"e": 1}}}),
        (["--members.tiny.arch.kind=mlp"], {"members": {"tiny": {"arch": {"kind": "mlp"}}}}),
        (["--a={b = 1}", "--a.c=2"], {"a": {"b": 1, "c": 2}}),
    ],
)
def test_value_lands_at_its_key(words: list[str], expected: dict[str, object]) -> None:
    assert apply_overrides({}, words) == expected


def test_an_inline_table_replaces_and_a_longer_key_sets_one() -> None:
    tree = {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    assert apply_overrides(tree, ["--a.b={c = 9}"]) == {"a": {"b": {"c": 9}}, "e": 3}
    assert apply_overrides(tree, ["--a.b.c=9"]) == {"a": {"b": {"c": 9, "d": 2}}, "e": 3}
    assert tree == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--run.seed", "--run.seed: no value; write key and value as one word, --run.seed=VALUE"),
        ("seed=3", "seed=3: not a key; write --section.key=VALUE, as --train.batch_size=8192"),
        ("--=3", "--=3: '' is not a key; write --section.key=VALUE, as --train.batch_size=8192"),
        ("--a..b=3", "--a..b=3: 'a..b' is not a key; write --section.key=VALUE, as --train.batch_size=8192"),
        ("--a b=3", "--a b=3: 'a b' is not a key; write --section.key=VALUE, as --train.batch_size=8192"),
        ("--run.seed.x=1", "--run.seed.x=1: run.seed is not a table, so it has no keys; write --run.seed=VALUE"),
        ("--run.parts.x=1", "--run.parts.x=1: run.parts is not a table, so it has no keys; write --run.parts=VALUE"),
        (
            "--members.t={tables=shared}",
            "--members.t={tables=shared}: the value is not TOML (Invalid value); inside [] and {} text needs double "
            "quotes, and the shell wants single quotes around the word: '--members.t={kind = \"mlp\"}'",
        ),
        (
            "--data.train=[day_0]",
            "--data.train=[day_0]: the value is not TOML (Invalid value); inside [] and {} text needs double quotes, "
            "and the shell wants single quotes around the word: '--data.train=[\"day_0\"]'",
        ),
    ],
)
def test_a_malformed_word_is_refused(word: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        apply_overrides({"run": {"seed": 3, "parts": ["x"]}}, [word])
    assert str(refused.value) == sentence
