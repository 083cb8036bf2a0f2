"""Charts: places of what is drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from trainer.planning.page.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    Bar,
    Caption,
    Curve,
    Limit,
    level_bars,
    log_ticks,
    over_ranks,
    stacked,
)
from trainer.planning.page.maps import Cell, Dot, Growth, Level, front, growth, quality, region

CAPTION = Caption(name="made", told="a < b", across="ranks", up="GiB")


def rects(svg: str, classes: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(svg)  # raises where anything is not escaped
    return [dict(one.attrib) for one in root.iter("rect") if one.attrib.get("class") == classes]


def test_parts_stand_on_each_other_in_their_share() -> None:
    bar = Bar(label="<1>", parts={"table_weights": 30.0, "activations": 10.0}, hint="a & b")
    svg = stacked([bar], limits=[Limit(label="80 <", value=80.0)], caption=CAPTION)
    [weights], [activations] = rects(svg, "k-table_weights"), rects(svg, "k-activations")
    assert float(weights["height"]) == pytest.approx(3 * float(activations["height"]), abs=0.3)
    assert float(weights["y"]) + float(weights["height"]) == pytest.approx(BOTTOM)
    assert float(activations["y"]) + float(activations["height"]) == pytest.approx(float(weights["y"]), abs=0.2)
    limit = re.search(r'class="capacity" x1="[\d.]+" y1="([\d.]+)"', svg)
    assert limit and BOTTOM - float(limit[1]) == pytest.approx(80 / 30 * float(weights["height"]), abs=0.5)


def test_what_does_not_fit_by_far_is_cut_and_squashes_nothing() -> None:
    bars = [Bar(label="1", parts={"table_weights": 50.0}, hint=""), Bar(label="8", parts={}, hint="", refused_at=9e3)]
    svg = stacked(bars, limits=[Limit(label="", value=80.0)], caption=CAPTION)
    [refused], [weights] = rects(svg, "refused"), rects(svg, "k-table_weights")
    assert float(refused["height"]) > 80 / 50 * float(weights["height"]) and float(weights["height"]) > 80
    assert float(refused["y"]) > 0 and "↑" in svg


@pytest.mark.parametrize("count", [1, 4, 16, 64, 300])
def test_bars_and_names_stay_inside(count: int) -> None:
    bars = [Bar(label=f"{place * 1024:,}", parts={"dense": 1.0 + place}, hint="") for place in range(count)]
    svg = stacked(bars, caption=CAPTION)
    drawn = rects(svg, "k-dense")
    assert len(drawn) == count
    assert min(float(one["x"]) for one in drawn) >= LEFT
    assert max(float(one["x"]) + float(one["width"]) for one in drawn) <= RIGHT
    names = [float(x) for x in re.findall(rf'x="([\d.]+)" y="{BOTTOM + 16:.1f}"', svg)]
    assert all(two - one >= 30 for one, two in zip(names, names[1:], strict=False)) and names


def test_twice_the_ranks_and_twice_the_rows_lie_on_the_dashed_line() -> None:
    curve = Curve(name="a", place=0, ranks=(2, 4, 8), values=(10.0, 20.0, 40.0), hints=("", "", ""))
    svg = over_ranks([curve], caption=CAPTION)
    dashed, line = re.findall(r'points="([^"]+)"', svg)
    assert dashed.split() == [line.split()[0], line.split()[-1]]
    first, middle, last = ([float(one) for one in corner.split(",")] for corner in line.split())
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.2)
    assert middle[1] == pytest.approx((first[1] + last[1]) / 2, abs=0.2)


def test_one_point_has_no_line() -> None:
    svg = over_ranks([Curve(name="", place=0, ranks=(8,), values=(3.0,), hints=("x",))], caption=CAPTION)
    assert "polyline" not in svg and svg.count('data-chart="made"') == 1


@pytest.mark.parametrize(("low", "high"), [(1, 1e7), (2.1e6, 3.9e6), (10, 90), (1e-6, 2e-6), (5, 5.2)])
def test_logarithmic_ticks(low: float, high: float) -> None:
    found = log_ticks(low, high)
    assert 2 <= len(found) <= 8 and all(low <= one <= high for one in found)


def test_the_front() -> None:
    dots = [
        Dot(across=x, up=y, label="", hint="")
        for x, y in [(1, 0.7), (2, 0.9), (3, 0.8), (2, 0.8), (5, 0.95), (9, 0.95)]
    ]
    assert [(dot.across, dot.up) for dot in front(dots)] == [(1, 0.7), (2, 0.9), (5, 0.95)]


@pytest.mark.parametrize(
    "dots", [[(1.0, 0.7)], [(1.0, 0.7), (1.0, 0.8)], [(0.0, 0.7), (9.0, 0.7)], [(1, 0.7), (1e4, 0.8)]]
)
def test_quality_of_few_dots(dots: list[tuple[float, float]]) -> None:
    made = [Dot(across=x, up=y, label="<2> members", hint="&", is_front=True) for x, y in dots]
    ElementTree.fromstring(quality(made, caption=CAPTION))


def test_the_region_has_a_field_for_each_point_and_tells_reasons_apart() -> None:
    cells = [
        Cell(row="1", column="2", shown="90 %", hint="<", filled=0.9),
        Cell(row="1", column="4", shown="50 %", hint="", filled=0.5),
        Cell(row="8", column="4", shown="1.7×", hint="", filled=1.7, refusal="device"),
        Cell(row="8", column="8", shown="no", hint="", filled=None, refusal="planner"),
    ]
    svg = region(cells, caption=CAPTION)
    fuller, emptier = rects(svg, "cell-of")
    assert float(fuller["style"].rsplit(",", 1)[1].rstrip(")")) > float(emptier["style"].rsplit(",", 1)[1].rstrip(")"))
    assert rects(svg, "cell-of r-device")[0]["x"] == emptier["x"] and len(rects(svg, "cell-of r-planner")) == 1


def test_tables_meet_what_machines_hold_where_they_are_outgrown() -> None:
    levels = [Level(label="a <", value=200.0, month=14.2, hint=""), Level(label="b", value=1e3, month=None, hint="")]
    svg = growth([Growth(start=100.0, factor=1.05, label="&")], levels, months=24, caption=CAPTION)
    root = ElementTree.fromstring(svg)
    [dot] = [one for one in root.iter("circle")]
    [line] = [one for one in root.iter("polyline")]
    (x1, y1), (x2, y2) = ([float(one) for one in corner.split(",")] for corner in line.attrib["points"].split())
    x, y = float(dot.attrib["cx"]), float(dot.attrib["cy"])
    assert y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.5)


def test_lying_bars() -> None:
    bars = [Bar(label="one", parts={"one": 4.0}, hint=""), Bar(label="two", parts={"member": 1.0}, hint="")]
    svg = level_bars(bars, ["4 ms", "1 ms"], caption=CAPTION)
    [one], [two] = rects(svg, "k-one"), rects(svg, "k-member")
    assert float(one["width"]) == pytest.approx(4 * float(two["width"]), abs=0.3)
