"""Markdown: tables, folded parts, and figures as a page shows them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from trainer.analysis.drawing import number
from trainer.analysis.intervals import Interval

DASH = "–"
DIGITS = {"auc": 5, "log_loss_nats": 5, "ne": 4, "calibration": 3}
TITLES = {"auc": "AUC", "log_loss_nats": "log loss", "ne": "NE", "calibration": "calibration"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table.

    Args:
        head: Its columns' names.
        rows: Its cells.
        words: How many columns, from the left, hold words; the others hold figures and stand on the right.
    """
    lines = [list(head), [*["---"] * words, *["---:"] * (len(head) - words)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def folded(title: str, content: str) -> str:
    """A part that a reader opens."""
    return f"<details><summary>{title}</summary>\n\n{content.strip()}\n\n</details>\n"


def sections(*parts: str) -> str:
    """Parts with a line between; empty ones are left out."""
    return "\n".join(f"{part.strip()}\n" for part in parts if part.strip())


def is_known(interval: Interval) -> bool:
    """Whether its ends are known: of one group they are not."""
    return math.isfinite(interval.low) and math.isfinite(interval.high)


def excludes_zero(interval: Interval) -> bool:
    """Whether 0 is outside."""
    return is_known(interval) and (interval.low > 0.0 or interval.high < 0.0)


def with_half_width(interval: Interval, digits: int, *, signed: bool = False) -> str:
    """A figure and half its interval's width; of one group, the figure alone."""
    shown = number(_finite(interval.value), digits, signed=signed)
    if not is_known(interval):
        return shown
    return f"{shown} ± {number((interval.high - interval.low) / 2.0, digits)}"


def gain(interval: Interval, digits: int) -> str:
    """A difference with its interval, bold where 0 is outside."""
    shown = with_half_width(interval, digits, signed=True)
    return f"**{shown}**" if excludes_zero(interval) else shown


def with_ends(interval: Interval, digits: int) -> str:
    """A signed figure and its interval's ends, bold where 0 is outside."""
    shown = plain(interval.value, digits, signed=True)
    if not is_known(interval):
        return shown
    low, high = (number(end, digits, signed=True) for end in (interval.low, interval.high))
    return f"**{shown}** [{low}, {high}]" if excludes_zero(interval) else f"{shown} [{low}, {high}]"


def plain(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A figure, or a dash."""
    return number(_finite(value), digits, signed=signed)


def count(value: float | None) -> str:
    """A whole number, or a dash."""
    return DASH if value is None else f"{round(value):,}"


def rate(value: float | None) -> str:
    """So many a second, in three significant digits."""
    if not value:
        return DASH
    return f"{float(f'{value:.3g}'):,.0f}"


def megabytes(num_bytes: int) -> str:
    """Bytes in MB."""
    return f"{num_bytes / 1e6:,.2f}"


def spelled(names: Sequence[str]) -> str:
    """Names one after the other, `and` before the last."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
