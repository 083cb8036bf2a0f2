"""The gallery: every kind is in it, and the written page is that of the sources and the measurements kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modules import members
from trainer.analysis.member_gallery import KindCost, KindText, gallery

DOCS = Path(__file__).parents[4] / "docs"


def test_the_written_page_is_current() -> None:
    measured = json.loads((DOCS / "gallery.json").read_text())
    assert (DOCS / "gallery.md").read_text() == gallery(measured), "run python tools/write_gallery.py"


@pytest.mark.parametrize("kind", members.kinds())
def test_every_kind_tells_what_it_is(kind: str) -> None:
    text = KindText.of(kind)
    assert all((text.title, text.idea, text.equation, text.source, text.deviations))
    assert text.title.count("\n") == 0 and ":" in text.title
    assert "Source" not in text.equation and "Deviations" not in text.source
    page = gallery({})
    assert f"## {kind}\n" in page and f"[`{kind}`](#{kind})" in page


def test_costs_are_those_of_the_published_way_to_take_numbers() -> None:
    assert (KindCost.of("mlp").numeric, KindCost.of("autoint").numeric) == ("dense", "scaled")
    assert KindCost.of("mlp").cost.parameters == (13 + 26 * 16) * 256 + 256 + 256 * 128 + 128 + 129
    assert KindCost.of("lr").first_order and not KindCost.of("mlp").first_order


def test_a_docstring_without_a_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.members import mlp

    monkeypatch.setattr(mlp, "__doc__", "MLP: a net.\n\nIdea: deep.\nEquation: y = x.\nSource: none.\n")
    with pytest.raises(ValueError, match=r"mlp.py: its docstring has no 'Deviations:'"):
        KindText.of("mlp")
