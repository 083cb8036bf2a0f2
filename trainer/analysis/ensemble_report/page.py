"""The report as one HTML page: no scripts, no network; light and dark, for screens, telephones and paper.

The page shows the report's plain values and nothing else. It begins with what was found out; chapters are in
trainer/analysis/ensemble_report/chapters.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from modules.merge import MERGED
from trainer.analysis.ensemble_report import chapters
from trainer.analysis.ensemble_report.terminal import shown_figures
from trainer.analysis.ensemble_report.words import number

_STYLE = Path(__file__).with_suffix(".css")


def page(report: Mapping[str, Any]) -> str:
    """The page's text."""
    body = [
        "<h1>Ensemble report</h1>",
        f"<p>{escape(report['scored']['folder'])}</p>",
        _verdict(report),
        _tiles(report),
        chapters.scored(report),
        chapters.figures(report),
        chapters.worth(report),
        chapters.curve(report),
        chapters.diversity(report),
        chapters.reliability(report),
        chapters.slices(report),
        chapters.grouped(report),
        chapters.glossary(report),
        chapters.command(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>Ensemble report: {escape(report['scored']['folder'])}</title>\n"
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(report: Mapping[str, Any]) -> str:
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in report["conclusion"]["sentences"])
    return f'<section class="verdict {escape(report["conclusion"]["verdict"])}"><h2>In short</h2>{told}</section>'


def _tiles(report: Mapping[str, Any]) -> str:
    by_name = {column["name"]: shown_figures(column) for column in report["columns"]}
    best = report["best"]["name"]
    tiles = [
        (f"{report['scored']['rows']:,}", "rows scored"),
        (f"{len(report['scored']['members']):,}", "members"),
        (number(by_name[MERGED]["log_loss_nats"]), "log loss of merged (nats)"),
        (number(by_name[best]["log_loss_nats"]), f"log loss of {best}, the best single"),
        (number(by_name[MERGED]["auc"]), "AUC of merged"),
        (number(by_name[MERGED]["calibration"], 4), "calibration of merged"),
    ]
    told = "".join(f'<div class="tile"><b>{escape(one)}</b><span>{escape(what)}</span></div>' for one, what in tiles)
    return f'<div class="tiles">{told}</div>'
