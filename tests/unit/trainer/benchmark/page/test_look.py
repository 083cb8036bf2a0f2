"""Charts' places for labels, ends of axes, and the files they become."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from trainer.analysis.intervals import Interval
from trainer.benchmark.page import look
from trainer.benchmark.page.look import apart, half_widths, new_figure, room, save, strategy_marks, without_far


def test_labels_keep_their_order_and_their_distance() -> None:
    wanted = [5.0, 5.1, 1.0, 9.9, 5.05, 10.0]
    placed = apart(wanted, least=0.8, low=0.0, high=10.0)
    assert sorted(range(6), key=placed.__getitem__) == sorted(range(6), key=wanted.__getitem__)
    assert np.diff(sorted(placed)).min() >= 0.8 - 1e-9
    assert min(placed) >= 0.0 and max(placed) <= 10.0
    assert placed[2] == 1.0  # nothing is near


def test_labels_without_room_share_what_there_is() -> None:
    placed = apart([1.0] * 5, least=10.0, low=0.0, high=4.0)
    assert sorted(placed) == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0])


def test_one_wide_bar_does_not_make_the_values_small() -> None:
    low, high = room([1.0, 2.0], [Interval(value=1.5, low=-50.0, high=50.0)])
    assert (low, high) == pytest.approx((-0.06, 3.06))
    assert room([1.0, 2.0], [Interval(value=1.5, low=math.nan, high=math.nan)]) == pytest.approx((0.94, 2.06))


def test_intervals_that_are_not_known_have_no_bars() -> None:
    known = Interval(value=1.0, low=0.5, high=2.0)
    assert half_widths([known]) == pytest.approx(np.array([[0.5], [1.0]]))
    assert half_widths([known, Interval(value=1.0, low=math.nan, high=math.nan)]) is None


def test_a_family_has_one_colour_and_its_strategies_lines_of_their_own() -> None:
    marks = strategy_marks({"a": "one", "b": "two", "c": "one"})
    assert marks["a"].colour == marks["c"].colour != marks["b"].colour
    assert marks["a"].line != marks["c"].line and marks["a"].marker != marks["b"].marker


def drawing() -> Figure:
    figure = new_figure(2.0, 1.0)
    figure.subplots().plot([1.0, 2.0], [1.0, 2.0], label="a line")
    return figure


def test_a_large_drawing_becomes_a_png_and_the_other_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = str(tmp_path / "chart")
    assert save(drawing, stem) == f"{stem}.svg"
    first = Path(f"{stem}.svg").read_bytes()
    assert save(drawing, stem) == f"{stem}.svg" and Path(f"{stem}.svg").read_bytes() == first
    monkeypatch.setattr(look, "LARGEST_BYTES", 100)
    assert save(drawing, stem) == f"{stem}.png"
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]


def test_a_value_that_would_make_the_others_a_line_is_left_out() -> None:
    near = [0.48, 0.485, 0.49, 0.495]
    assert without_far([0.69, *near]) == near
    assert without_far([-3.0, *near, 0.69]) == near
    assert without_far([0.53, *near]) == [*near, 0.53], "the others take up more than a quarter"
    assert without_far([2.0, 2.0, 2.0, 9.0]) == [2.0, 2.0, 2.0]
    assert without_far([1.0]) == [1.0]
