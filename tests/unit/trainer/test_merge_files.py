"""merge.toml: rules come back bit for bit, and what does not fit is refused by key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError
from modules.calibration import Isotonic, Platt, Temperature
from modules.merge import MergeRule
from trainer.merge_files import FittedOn, columns_of, read_merge, read_merge_file, write_merge

DRAW = np.random.default_rng(2)
SIMPLEX = DRAW.dirichlet(np.ones(3))
CURVE = Isotonic(
    logits=tuple(np.sort(DRAW.normal(size=37))), probabilities=tuple(np.sort(DRAW.uniform(0.01, 0.99, size=37)))
)
MEMBERS = ("a", "b_1", "c")
RULES = [
    MergeRule.fixed("mean_logit", members=["a"]),
    MergeRule(rule="weights", members=MEMBERS, weights=tuple(SIMPLEX), calibration=CURVE),
    MergeRule(rule="greedy", members=MEMBERS, weights=(2 / 3, 1 / 3, 0.0), calibration=Temperature(temperature=1 / 3)),
    MergeRule(
        rule="stacking",
        members=MEMBERS,
        weights=(1e-300, -5e5, 0.1),
        intercept=-1 / 7,
        calibration=Platt(scale=1.1, shift=-1e-9),
    ),
    MergeRule(rule="confidence", members=MEMBERS, sharpness=1.9999999999999998),
]
FITTED_ON = FittedOn(
    folder='pre "d"\\x',
    parts=("day_0", "day_1"),
    num_rows=12,
    num_rows_used=6,
    dictionary="abc",
    checkpoints=("runs/x at step 7",),
    log_loss_mean_logit_nats=0.5,
    log_loss_nats=0.1 + 0.2,
    notes=("a note",),
)
SOUND = 'rule = "weights"\nmembers = ["a", "b"]\nweights = [0.25, 0.75]\n'


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
@pytest.mark.parametrize("fitted_on", [None, FITTED_ON])
def test_a_rule_comes_back_bit_for_bit(rule: MergeRule, fitted_on: FittedOn | None, tmp_path: Path) -> None:
    path = str(tmp_path / "merge.toml")
    write_merge(path, rule, fitted_on)
    assert read_merge(path) == rule
    assert read_merge_file(path).fitted_on == fitted_on


def test_a_file_written_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "merge.toml").write_text(SOUND + "[calibration]\nkind = 'platt'\nscale = 1\nshift = 0\n")
    rule = read_merge(str(tmp_path / "merge.toml"))
    assert (rule.weights, rule.calibration) == ((0.25, 0.75), Platt(scale=1.0, shift=0.0))


def test_long_lists_are_a_few_lines(tmp_path: Path) -> None:
    write_merge(str(tmp_path / "merge.toml"), RULES[1])
    text = (tmp_path / "merge.toml").read_text()
    assert text.startswith("# ") and len(text.splitlines()) < 25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SOUND + "colour = 1", "colour: no such key; the keys are rule, members"),
        (SOUND.replace("0.25", "nan"), "weights: nan is not a finite number"),
        (SOUND.replace("0.25", "1e308"), "weights: 1e+308 is out of all proportion to logits; from -1e6 to 1e6"),
        (SOUND.replace("[0.25, 0.75]", "[1.0]"), "weights: 1 for 2 members"),
        (SOUND.replace('"weights"', '"best"'), "rule: 'best' is not one of"),
        (SOUND.replace('rule = "weights"', "rule = ["), "not TOML"),
        ("rule = [1]\nmembers = ['a']", "rule: [1] is not one of"),
        (SOUND + "fitted_on = 3", "fitted_on: 3 is not a table"),
        (SOUND + "[fitted_on]\nfolder = 'x'", "fitted_on.parts: missing"),
        (SOUND + "[calibration]\nkind = 'platt'\nscale = inf\nshift = 0", "calibration.scale: inf is not a finite"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "merge.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_merge(str(path))
    assert str(refused.value).startswith(f"{path}: {message}"), refused.value
    assert "fit again with tools/merge_predictions.py" in str(refused.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('num_rows = "12"', "fitted_on.num_rows: '12' is not what it should be (int)"),
        ("parts = [1]", "fitted_on.parts: [1] is not what it should be"),
        ("more = 1", "fitted_on.more: no such key"),
    ],
)
def test_where_it_was_fitted_is_strict_too(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "merge.toml"
    write_merge(str(path), RULES[0], FITTED_ON)
    key = line.split(" ")[0]
    kept = [one for one in path.read_text().splitlines() if not one.startswith(f"{key} =")]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(ConfigError) as refused:
        read_merge_file(str(path))
    assert message in str(refused.value)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; fit one"):
        read_merge(str(tmp_path / "merge.toml"))


def test_columns_come_in_the_rules_order() -> None:
    rule = MergeRule.fixed("median", members=["c", "a"])
    assert columns_of(rule, ["a", "b", "c"], source="it") == [2, 0]
    with pytest.raises(ConfigError, match="needs 'c', which is not in it; there are a, b"):
        columns_of(rule, ["a", "b"], source="it")
