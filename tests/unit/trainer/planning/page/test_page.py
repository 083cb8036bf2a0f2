"""The page of a capacity study: whole, escaped, without a network, and as a browser has it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import browse
from tests.support.made_capacity import A100, CPU, H100, made_study
from trainer.planning.page import words
from trainer.planning.page.page import page, write_page

STUDIES: dict[str, Callable[[], dict[str, Any]]] = {
    "one point": lambda: made_study(machines=(H100,), ranks=(8,), swept={}, purposes=("train",), with_more=False),
    "one that does not fit": lambda: made_study(machines=(A100,), ranks=(1,), swept={}, with_more=False),
    "no sweep": lambda: made_study(swept={}),
    "CPU alone": lambda: made_study(machines=(CPU,), swept={}),
    "mixed prices": lambda: made_study(machines=(H100, CPU), swept={"members": [1, 2]}),
    "a sweep without ranks": lambda: made_study(machines=(H100,), ranks=(16,), purposes=("score",)),
    "no points": lambda: made_study(ranks=(), purposes=(), with_more=False),
}


@pytest.mark.parametrize("name", STUDIES)
def test_pages_of_all_kinds(name: str) -> None:
    study = STUDIES[name]()
    text = page(study)
    assert "None" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", text, flags=re.S)
    assert "nan" not in re.findall(r'="([^"]*)"', text)
    assert text.count('data-chart="point"') == len(study["points"])
    fitting = sum(point["fits"] for point in study["points"])
    assert (f"{len(study['points']):,} point" in text) == bool(study["points"])
    assert ("Memory of a rank" in text) == bool(study["points"])
    assert ("What a step" in text) == bool(fitting)


def test_hundreds_of_points() -> None:
    ranks = (1, 2, 4, 8, 16, 24, 32, 64, 128)
    swept = {"members": [1, 2, 3, 4, 6, 8, 12, 16], "tables": ["shared", "own"]}
    study = made_study(machines=(A100, H100, CPU), ranks=ranks, swept=swept)
    text = page(study)
    assert text.count('data-chart="point"') == len(study["points"]) == 864
    assert "more combinations of settings" in text
    assert text.count('aria-label="Memory of the fullest rank') == 8  # four of each purpose


def test_no_network_is_needed() -> None:
    text = page(made_study())
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", text)
    assert not re.search(r"@import|url\((?!#)|https?:", text)


def test_all_is_escaped() -> None:
    study = made_study(swept={"<h8>": ["</style><h7>", "&"]}, machines=(A100,))
    study["config"] = study["command"] = study["data"]["origin"] = "</script><script>alert(1)</script>"
    study["hardware"][0]["sources"] = ['"><img src=x>']
    study["notes"] = ["<h6x>"]
    study["remedies"] = {"train": {"of": "<h5x>", "changes": [_remedy("<em>")]}}
    for point in study["points"]:
        point["hardware"] = "<h9>"
    study["hardware"][0]["name"] = "<h9>"
    text = page(study)
    assert not re.search(r"<(h\d\w*|em|img)\b(?<!<h[1-3])|<script>alert|</style><h7>", text)
    assert "&lt;h9&gt;" in text and "&lt;em&gt;" in text and text.count("<script>") == 1


def _remedy(change: str) -> dict[str, Any]:
    return {"change": change, "saves_bytes": 2**33, "suffices": True, "proof": "a plan"}


def test_colours_stay_with_their_machines() -> None:
    text = page(made_study(purposes=("train",)))
    charts = re.findall(r'aria-label="Rows per second.*?</svg><div class="legend">(.*?)</div>', text, flags=re.S)
    assert charts
    for legend in charts:
        for place, label in re.findall(r'<i class="s(\d)"></i>(.*?)</span>', legend):
            assert label == (A100.name, H100.name)[int(place)]


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    study = made_study()
    write_page(str(tmp_path / "page.html"), study)
    drawn = browse(tmp_path / "page.html")
    assert drawn.counts["point"] == len(study["points"])
    assert drawn.counts["region"] == len(study["points"])
    assert drawn.counts["memory"] + drawn.counts["memory-refused"] == 2 * 4 * 4
    assert drawn.counts["front"] == 4 + 4 and drawn.counts["growth"] >= 1
    assert drawn.counts["serving"] == 2 + len(study["serving"]["members"])
    assert drawn.counts["pace"] and drawn.counts["step"] and drawn.counts["traffic"]
    text = "\n".join(drawn.text)
    for _, sentence in words.conclusion(study)[1]:
        assert sentence in text
    for told in (study["command"], *study["hardware"][0]["sources"], "figures of data sheets, not measured"):
        assert told in text


def test_the_table_is_put_in_order(tmp_path: Path) -> None:
    study = made_study(machines=(H100,), ranks=(16, 8, 32), swept={}, purposes=("train",))
    click = '<script>document.querySelectorAll("table.sortable th button")[1].click()</script></body>'
    (tmp_path / "page.html").write_text(page(study).replace("</body>", click))
    told = "".join(browse(tmp_path / "page.html").text)
    assert [int(ranks) for ranks in re.findall(rf"{H100.name}(8|16|32)[124]4yes", told)] == [8, 16, 32]


def test_a_study_from_a_file_gives_the_same_page(tmp_path: Path) -> None:
    study = made_study()
    assert page(json.loads(json.dumps(study, allow_nan=False))) == page(study)
