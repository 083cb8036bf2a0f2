"""What charts are made of: round ticks, their names, places on an axis, names that are no markup."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from trainer.analysis.ensemble_report.charts import Axis, Mark, intervals, matrix, size_curve, sizes_to_name, ticks


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.00037, 0.00041), (0.4719, 0.4766), (-3.0, 1e4), (2.0, 2.0)])
def test_ticks_lie_inside_and_are_few(low: float, high: float) -> None:
    for most in (3, 4, 5):
        found = ticks(low, high, most=most)
        assert 1 <= len(found) <= most + 1 and (low == high or len(found) >= 2)
        assert all(low - 1e-9 <= one <= high + 1e-9 for one in found)


def test_an_axis_maps_its_ends_and_bends() -> None:
    axis = Axis(low=0.0, high=4.0, start=10.0, stop=30.0, bend=math.sqrt)
    assert (axis.at(0.0), axis.at(1.0), axis.at(4.0)) == (10.0, 20.0, 30.0)


def test_sizes_are_named_as_far_as_there_is_room() -> None:
    assert sizes_to_name(8) == list(range(1, 9))
    for most in (2, 24, 80, 1_000):
        assert len(sizes_to_name(most)) <= 14


def test_texts_are_escaped_and_long_ones_cut() -> None:
    name = "<b>&a very long name"
    drawn = intervals([Mark(label=name, value=0.1, low=-0.1, high=0.2), Mark(label="none", value=None)], name="x")
    tree = ElementTree.fromstring(drawn)
    texts = ["".join(node.itertext()) for node in tree.iter() if node.tag == "text"]
    assert any(text.startswith("<b>&a very lo…") and text.endswith(name) for text in texts)
    matrix_tree = ElementTree.fromstring(matrix([name, "b"], [[1.0, 0.5], [0.5, None]], name="m", digits=2))
    assert sum("data-chart" in node.attrib for node in matrix_tree.iter()) == 2


def test_differences_of_rounding_alone_are_drawn() -> None:
    points = [
        {"size": size, "mean": 0.3 + size * 1e-17, "spread": 1e-17, "lowest": 0.3, "highest": 0.3 + 5e-17}
        | {"best_value": 0.3, "num_subsets": 3}
        for size in (1, 2)
    ]
    ElementTree.fromstring(size_curve({"points": points, "fit": None}, name="flat"))
    ElementTree.fromstring(intervals([Mark(label="a", value=3e-18, low=-1e-17, high=1e-17)], name="flat"))
