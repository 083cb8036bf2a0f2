"""Scored runs: what --checkpoint may say, and members that must not share a column."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from tests.support.runs import small_run
from trainer.scored_run import ScoredRun, check_members_differ, labels_and_folders


@pytest.mark.parametrize("folder", ["runs/a", "runs/lr=0.1/a", "./lr=3", "Best=x", "a=", "=a"])
def test_one_checkpoint_needs_no_label(folder: str) -> None:
    assert labels_and_folders([folder]) == [("", folder)]


def test_a_label_stands_in_front() -> None:
    assert labels_and_folders(["best_2=runs/a"]) == [("best_2", "runs/a")]
    assert labels_and_folders(["a=b=c", "b=s3://x/y"]) == [("a", "b=c"), ("b", "s3://x/y")]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--checkpoint: not given; name a checkpoint folder, as runs/NAME/TIME/checkpoints/step_..."),
        (
            ["a=x", "runs/b"],
            "--checkpoint: 'runs/b' is one of 2 and needs a label of a-z, 0-9 and _ for its columns; write"
            " --checkpoint a=runs/b",
        ),
        (["a=x", "b=y", "a=z"], "--checkpoint: 'a' labels two checkpoints; give each a label of its own"),
    ],
)
def test_what_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        labels_and_folders(words)
    assert str(refused.value) == sentence


def run(label: str, *members: str) -> ScoredRun:
    text = "".join(f'[members.{name}]\narch = {{ kind = "mlp", hidden = [4] }}\n' for name in members)
    return ScoredRun(label=label, folder=f"runs/{label}", config=small_run(text=text))


def test_members_are_called_after_their_label() -> None:
    assert run("", "deep", "solo").members == ("deep", "solo")
    assert run("a", "deep", "solo").members == ("a_deep", "a_solo")
    check_members_differ([run("a", "deep"), run("b", "deep")])


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        check_members_differ([run("a", "b_deep"), run("a_b", "deep")])
    assert str(refused.value) == ("--checkpoint: a and a_b would both have a member a_b_deep; give them other labels")
