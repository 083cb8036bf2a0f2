"""A capacity study as one HTML page: no network, no library; light and dark, for screens, telephones and paper.

The page shows the study's plain values and nothing else. It looks as the ensemble report's page does and begins with
the answer; a short script puts the table of points in order, and nothing is missing without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from trainer import storage
from trainer.analysis.ensemble_report import page as report_page
from trainer.planning.page import chapters, further, point_table, selection, words

_STYLES = (Path(report_page.__file__).with_suffix(".css"), Path(__file__).with_suffix(".css"))
_ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def write_page(path: str, study: Mapping[str, Any]) -> None:
    """Writes the page.

    Args:
        path: Where to, local or s3://.
        study: The study's plain values, as its JSON file has them (format chorus-capacity, version 1).
    """
    storage.write_text(path, page(study))


def page(study: Mapping[str, Any]) -> str:
    """The page's text."""
    title = f"Capacity plan: {study['config']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(study['data']['origin'])}</p>",
        _verdict(study),
        _tiles(study),
        further.remedies(study),
        further.answers(study),
        chapters.region(study),
        chapters.memory(study),
        chapters.pace(study),
        chapters.step(study),
        chapters.traffic(study),
        further.quality(study),
        further.growth(study),
        further.serving(study),
        point_table.all_points(study),
        further.made(study),
    ]
    style = "\n".join(one.read_text(encoding="utf-8") for one in _STYLES)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_ALLOWED}">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{_HATCHES}<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n<script>\n{point_table.SCRIPT.read_text(encoding='utf-8')}</script>\n</body>\n</html>\n"
    )


def _hatch(name: str, turn: int, wide: float) -> str:
    return (
        f'<pattern id="hatch-{name}" width="6" height="6" patternUnits="userSpaceOnUse"'
        f' patternTransform="rotate({turn})"><rect class="hatch-ground" width="6" height="6"/>'
        f'<rect class="hatch-{name}" width="{wide}" height="6"/></pattern>'
    )


# Each reason of a refusal has a hatch of its own, so that they are told apart without colours, too.
_HATCHES = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>'
    + _hatch("device", 45, 2.5)
    + _hatch("host", -45, 2.5)
    + _hatch("placement", 0, 2.0)
    + _hatch("planner", 90, 1.5)
    + "</defs></svg>\n"
)


def _verdict(study: Mapping[str, Any]) -> str:
    verdict, sentences = words.conclusion(study)
    told = "".join(f'<p class="{kind}">{escape(sentence)}</p>' for kind, sentence in sentences)
    return f'<section class="verdict {verdict}"><h2>In short</h2>{told}</section>'


def _tiles(study: Mapping[str, Any]) -> str:
    rows = []
    for purpose in selection.purposes(study):
        point = next(iter(selection.chosen_points(study, purpose).values()), None)
        if point is None:
            continue
        work = "an epoch" if purpose == "train" else "scoring all rows"
        tiles = [
            (words.many(point["world_size"], words.device_word(point)), f"to {purpose}, {point['hardware']}"),
            (
                words.size(selection.taken_bytes(point)),
                f"on the fullest rank, of {words.size(point['capacity_bytes'])}",
            ),
            (words.rate(point["rows_per_second"]), f"to {purpose}"),
            (words.duration(point["hours"]), f"for {work}"),
        ]
        told = "".join(
            f'<div class="tile"><b>{escape(one)}</b><span>{escape(what)}</span></div>' for one, what in tiles
        )
        rows.append(f'<div class="tiles">{told}</div>')
    return "".join(rows)
