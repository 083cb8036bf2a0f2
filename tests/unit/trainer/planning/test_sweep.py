"""Sweeps: words to keys and values, and to ensembles."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from tests.support.planned_cases import facts, run_of
from trainer.planning.sweep import plain, read_sweeps, split_values, variants


def test_values_are_cut_at_commas_outside_brackets():
    assert split_values("1,2,4") == ["1", "2", "4"]
    assert split_values("[64,32],[128]") == ["[64,32]", "[128]"]
    assert split_values('{kind="mlp",hidden=[4,5]},"a,b"') == ['{kind="mlp",hidden=[4,5]}', '"a,b"']


def test_keys_and_values():
    assert read_sweeps(["members.solo.copies=1,2", "ranks=8, 16"]) == {
        "members.solo.copies": ["1", "2"],
        "ranks": ["8", "16"],
    }
    assert read_sweeps(["--tables.own.dim=4"]) == {"tables.own.dim": ["4"]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tables.own.dim"], "not of the form KEY=V1,V2"),
        (["=4,8"], "not of the form"),
        (["tables.own.dim=4,,8"], "not of the form"),
        (["tables.own.dim="], "not of the form"),
        (["ranks=8", "ranks=16"], "ranks is given twice"),
        (["ranks=8,16,8"], "has 8 twice"),
    ],
)
def test_other_forms_are_refused(words, told):
    with pytest.raises(ConfigError, match=f"^--sweep: .*{told}"):
        read_sweeps(words)


def test_values_as_toml_reads_them():
    assert [plain(text) for text in ("4", "0.5", "[1, 2]", "true", "row_wise", '"x"')] == [
        4,
        0.5,
        [1, 2],
        True,
        "row_wise",
        "x",
    ]


def test_every_combination_is_an_ensemble():
    axes = {"members.solo.copies": ["1", "3"], "tables.own.optimizer": ["sgd", "adagrad"]}
    made = variants(axes, read=lambda words: run_of(*words), facts=lambda config: facts())
    assert [(len(one.config.expanded_members()), one.config.tables["own"].optimizer) for one in made] == [
        (2, "sgd"),
        (2, "adagrad"),
        (4, "sgd"),
        (4, "adagrad"),
    ]
    assert made[2].swept == {"members.solo.copies": 3, "tables.own.optimizer": "sgd"}


def test_nothing_swept_is_one_ensemble():
    (made,) = variants({}, read=lambda words: run_of(*words), facts=lambda config: facts())
    assert made.swept == {} and made.config == run_of()


def test_a_combination_that_is_no_run_is_named():
    with pytest.raises(ConfigError, match=r"--sweep: members.solo.copies=0: (?s:.*)above zero"):
        variants({"members.solo.copies": ["1", "0"]}, read=lambda words: run_of(*words), facts=lambda config: facts())
    with pytest.raises(ConfigError, match=r"--sweep: tables.own.dims=4: (?s:.*)dims"):
        variants({"tables.own.dims": ["4"]}, read=lambda words: run_of(*words), facts=lambda config: facts())
