"""What a user reads on a mistake in the configuration, word for word."""

from __future__ import annotations

import pytest

from configs.interval_schema import Until
from configs.problems import nearest
from tests.unit.configs.reading import ONE_MEMBER, problems, read, refusal


def test_every_problem_is_listed_at_once_in_the_order_of_the_file() -> None:
    text = """
        [members.wide]
        arch = {kind = "mpl"}
        [members.cross]
        arch = {kind = "cross", low_rank = 3}
        [train]
        batch_sise = 4
    """
    assert refusal(text) == (
        "run.toml has 3 problems:\n"
        "  members.wide.arch.kind: 'mpl' is not a member; choose one of cross, mlp, nested\n"
        "  members.cross.arch.low_rank: no such key; did you mean 'low_rank_dim'?\n"
        "  train.batch_sise: no such key; did you mean 'batch_size'?"
    )


def test_one_problem_is_counted_as_one() -> None:
    assert refusal(ONE_MEMBER + "[run]\nseed = true") == (
        "run.toml has 1 problem:\n  run.seed: true is not a whole number"
    )


def test_overrides_are_named_as_a_source() -> None:
    assert refusal(ONE_MEMBER, "--run.seed=1.5") == (
        "run.toml with overrides has 1 problem:\n  run.seed: 1.5 is not a whole number"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('train.batch_size = "many"', "train.batch_size: 'many' is not a whole number"),
        ("train.batch_size = true", "train.batch_size: true is not a whole number"),
        ("train.batch_size = 2.0", "train.batch_size: 2.0 is not a whole number"),
        ("train.batch_size = [1]", "train.batch_size: a list is not a whole number"),
        ("train.batch_size = {x = 1}", "train.batch_size: a table is not a whole number"),
        ("dense.lr = true", "dense.lr: true is not a number"),
        ("dense.lr = '0.1'", "dense.lr: '0.1' is not a number"),
        ("run.name = 3", "run.name: 3 is not text; write it in double quotes"),
        ("data.valid = 'day_0'", "data.valid: 'day_0' is not a list; write it in []"),
        ("data.valid = ['day_0', 1]", "data.valid[1]: 1 is not text; write it in double quotes"),
        ("train = 3", "train: 3 is not a table; write it as {key = VALUE}"),
        ("tables = 3", "tables: 3 is not a table; write it as {key = VALUE}"),
        ("tables.shared = 3", "tables.shared: 3 is not a table; write it as {key = VALUE}"),
        (
            "merge.rule = 'mean'",
            "merge.rule: 'mean' is not one of mean_logit, mean_probability, median, weights, greedy, stacking, "
            "confidence; did you mean 'mean_logit'?",
        ),
        (
            "tables.shared.features.C3.placement = 'zzz'",
            "tables.shared.features.C3.placement: 'zzz' is not one of auto, data_parallel, table_wise, row_wise, "
            "column_wise, table_row_wise, table_column_wise, grid",
        ),
        (
            "tables.shared.features.'a b'.zzz = 1",
            'tables.shared.features."a b".zzz: no such key; the keys here are placement, kernel',
        ),
        (
            "merj.rule = 'median'",
            "merj: no such key; did you mean 'merge'?",
        ),
        (
            "zzz = 1",
            "zzz: no such key; the keys here are run, data, train, dense, tables, members, loss, merge, checkpoint,"
            " score",
        ),
        ("run.seed = inf", "run.seed: inf is not a finite number"),
        ("dense.lr = nan", "dense.lr: nan is not a finite number"),
        ("dense.lr = 1e999", "dense.lr: inf is not a finite number"),
        ("run.seed = 9223372036854775808", "run.seed: a whole number must fit in 64 bits"),
        (
            "run.name = 2024-01-01",
            "run.name: 2024-01-01 is a date or time, which no key takes; write text in double quotes",
        ),
        (
            "data.valid = ['x', 07:30:00]",
            "data.valid[1]: 07:30:00 is a date or time, which no key takes; write text in double quotes",
        ),
        (f"run.seed = '{'x' * 99}'", f"run.seed: '{'x' * 56}... is not a whole number"),
    ],
)
def test_a_wrong_value_says_what_was_given_and_what_is_wanted(text: str, sentence: str) -> None:
    assert [line.strip() for line in refusal(f"{text}\n{ONE_MEMBER}").splitlines()[1:]] == [sentence]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[members.x]", "members.x.arch.kind: missing; choose one of cross, mlp, nested"),
        ("[members.x]\narch = {}", "members.x.arch.kind: missing; choose one of cross, mlp, nested"),
        ("[members.x]\narch = {kind = 3}", "members.x.arch.kind: 3 is not text; choose one of cross, mlp, nested"),
        ("[members.x]\narch = 'mlp'", "members.x.arch: 'mlp' is not a table; write it as {key = VALUE}"),
        ("[members]\nx = 'mlp'", "members.x: 'mlp' is not a table; write it as {key = VALUE}"),
        (
            "[members.x]\narch = {kind = '.mlp'}",
            "members.x.arch.kind: '.mlp' is not a member; choose one of cross, mlp, nested",
        ),
        (
            "[members.x]\narch = {kind = 'mine.arch'}",
            "members.x.arch.kind: 'mine.arch' cannot be imported (No module named 'mine'); correct it, or choose one "
            "of cross, mlp, nested",
        ),
        (
            "[members.x]\narch = {kind = 'mlp', hidden = [64, 'x']}",
            "members.x.arch.hidden[1]: 'x' is not a whole number",
        ),
        ("[members.x]\narch = {kind = 'mlp', hidden = []}", "members.x.arch.hidden: give at least one width"),
        ("[members.x]\narch = {kind = 'mlp', dropout = inf}", "members.x.arch.dropout: inf is not a finite number"),
        (
            "[members.x]\narch = {kind = 'cross', structure = 'stack'}",
            "members.x.arch.structure: 'stack' is not one of stacked, parallel; did you mean 'stacked'?",
        ),
        (
            "[members.x]\narch = {kind = 'nested', towers = {a = {width = 1}}}",
            "members.x.arch.towers.a.width: no such key; did you mean 'widths'?",
        ),
        ("[members.x]\narch = {kind = 'nested', exact = 1}", "members.x.arch.exact: 1 is not true or false"),
        (
            "[members.x]\narch = {kind = 'nested', pair = [1]}",
            "members.x.arch.pair[1]: missing; this key must be given",
        ),
    ],
)
def test_a_member_is_refused_in_words(text: str, sentence: str) -> None:
    assert [line.strip() for line in refusal(f"{text}\n{ONE_MEMBER}").splitlines()[1:]] == [sentence]


def test_a_key_of_two_types_is_named_without_them() -> None:
    assert problems("[members.x]\narch = {kind = 'nested', width = 1.5}") == [
        "members.x.arch.width: 1.5 is not a whole number",
        "members.x.arch.width: 1.5 is not text; write it in double quotes",
    ]


def test_rules_of_sections_stand_under_their_path() -> None:
    assert problems(
        """
        [data]
        train = ["a", "b", "a"]
        [train]
        batch_size = 0
        until = {steps = 1, epochs = 1}
        [tables.shared]
        dim = 6
        lr = 0
        features.C3.placement = "grid"
        [score]
        parts = ["z", "z"]
        """
    ) == [
        "data.train: 'a' is named twice; its rows would be trained twice",
        # train's own rule waits until its until is right
        "train.until.steps: give exactly one of steps, epochs; on the command line write"
        " --train.until='{steps = 500}', which replaces the other",
        'tables.shared.dim: 6 is not a multiple of 4, which the kernels need; take 8, or placement = "data_parallel"',
        "tables.shared.lr: 0.0 must be above zero",
        "tables.shared.features.C3.placement: 'grid' under rowwise_adagrad keeps one sum per piece of a row, which is"
        ' another optimizer than under the other placements; take optimizer = "adagrad" or "sgd", or confirm with'
        " column_sums = true",
        "score.parts: 'z' is named twice; a row is scored once",
    ]


def test_until_is_one_of_two() -> None:
    wrong = "give exactly one of steps, epochs; on the command line write --train.until='{steps = 500}'"
    for until, key in (("{}", "steps"), ("{epochs = 2, steps = 1}", "steps")):
        assert problems(f"[train]\nuntil = {until}") == [f"train.until.{key}: {wrong}, which replaces the other"]
    assert read(ONE_MEMBER, "--train.until={steps = 500}").train.until == Until(steps=500)


def test_data_without_parts_or_folder_are_no_mistake_yet() -> None:
    """A checkpoint's run may be scored on another folder; training asks for both."""
    assert read(ONE_MEMBER, "--data.root=x").data.train == ()
    assert read(ONE_MEMBER, '--data.train=["a"]').data.root == ""


def test_a_group_that_no_member_names_is_refused() -> None:
    groups = "[tables.shared]\n[tables.own]\n[tables.wide]\ndim = 4\n[tables.spare]\n"
    assert problems(groups) == [  # in the order of the file
        "tables.wide: no member names it; remove it",
        "tables.spare: no member names it; remove it",
    ]
    user = '[members.x]\ntables = "wide"\narch = {kind = "mlp"}\n'
    assert problems(groups + user) == ["tables.spare: no member names it; remove it"]
    assert list(read(ONE_MEMBER + user + groups.removesuffix("[tables.spare]\n")).tables) == ["shared", "own", "wide"]


def test_rules_across_sections_are_asked_although_a_section_failed() -> None:
    assert problems(
        """
        [run]
        seed = "x"
        [members.merged]
        arch = {kind = "mlp"}
        tables = "nowhere"
        dim = "x"
        """
    ) == [
        "members.merged: this name is reserved; choose another",
        "members.merged.tables: no [tables.nowhere]; choose one of own, shared",
        "members.merged.dim: 'x' is not a whole number",
        "run.seed: 'x' is not a whole number",
    ]


def test_no_member_is_a_problem_of_the_run() -> None:
    assert refusal("[run]\nseed = 'x'") == (
        "run.toml has 2 problems:\n"
        "  members: none; give at least one, as [members.deep]\n"
        "  run.seed: 'x' is not a whole number"
    )


def test_bytes_that_are_no_text_are_refused() -> None:
    assert problems("", "--run.folder=\udcff") == ["run.folder: '\\udcff' is not UTF-8 text"]


@pytest.mark.parametrize(
    ("name", "found"),
    [("mean", "mean_logit"), ("medain", "median"), ("me", None), ("zzz", None), ("", None)],
)
def test_the_nearest_name(name: str, found: str | None) -> None:
    assert nearest(name, ["median", "mean_logit", "mean_probability"]) == found
