"""Every rule has its layouts, and every pair what it must come to."""

from __future__ import annotations

import pytest

from trainer.analysis.reliability.reshard_layouts import RULES, WORLDS, Layout, expected, layouts, matrix_run


def test_all_seven_placements_are_there_and_every_rule_has_five_by_five_but_adam():
    of = {rule: layouts(rule, WORLDS) for rule in RULES}
    assert {layout.placement for layout in of["sgd"]} == {
        *("data_parallel", "table_wise", "row_wise", "column_wise"),
        *("table_row_wise", "table_column_wise", "grid"),
    }
    assert {rule: len(found) for rule, found in of.items()} == {
        "sgd": 15,
        "adagrad": 15,
        "rowwise_adagrad": 15,
        "adam": 3,
    }
    assert {layout.world_size for layout in of["sgd"] if layout.placement == "grid"} == {4}


@pytest.mark.parametrize(
    ("rule", "saved", "loaded", "outcome"),
    [
        ("rowwise_adagrad", "1 table_wise", "4 row_wise", "equal"),
        ("rowwise_adagrad", "2 column_wise", "4 grid", "equal"),
        ("rowwise_adagrad", "4 table_column_wise", "1 data_parallel", "mean"),
        ("rowwise_adagrad", "4 row_wise", "2 column_wise", "refused"),
        ("adagrad", "4 row_wise", "2 column_wise", "equal"),
        ("sgd", "4 grid", "1 data_parallel", "equal"),
    ],
)
def test_what_a_pair_must_come_to(rule, saved, loaded, outcome):
    assert expected(rule, saved=Layout.named(saved), loaded=Layout.named(loaded)) == outcome


@pytest.mark.parametrize("rule", RULES)
def test_every_run_is_accepted_and_placed(rule):
    for layout in layouts(rule, WORLDS):
        config = matrix_run(rule, layout, "--run.seed=5")
        assert config.run.seed == 5
        for group in config.tables.values():
            assert (group.optimizer, group.placement) == (rule, layout.placement)
        assert Layout.named(layout.name) == layout
