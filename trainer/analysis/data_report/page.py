"""The report on a prepared folder as one HTML page that needs nothing else, and as a table for the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TEMPLATE = Path(__file__).with_suffix(".html")
_PLACE = "@FIGURES@"


def page(figures: dict[str, Any]) -> str:
    """The page: a template that draws the figures, which lie in it as JSON."""
    # In a script element nothing ends the JSON but "</script"; a name may hold that.
    text = json.dumps(figures, allow_nan=False).replace("<", "\\u003c")
    return _TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, text)


def table(figures: dict[str, Any]) -> str:
    """The figures that are looked at first, in lines."""
    lines = [f"{'part':<16}{'rows':>16}{'label rate':>12}"]
    lines += [f"{part['name']:<16}{part['num_rows']:>16,}{_share(part['label_rate']):>12}" for part in figures["parts"]]
    later = [part["name"] for part in figures["parts"] if part["name"] not in figures["reference_parts"]]
    last = later[-1] if later else None
    lines += ["", f"{'feature':<16}{'distinct':>14}{'missing':>9}{'rare':>9}{'top 1':>9}{'top 10':>9}{'top 100':>9}"]
    lines[-1] += f"{'top 1000':>10}{'zipf':>7}{'bag':>7}" + (f"{'unseen':>9}{'drift':>8}" if last else "")
    for feature in figures["id_features"]:
        tops = [_share(_top(feature["top_shares"], top)) for top in (1, 10, 100, 1_000)]
        line = f"{feature['name']:<16}{feature['distinct']:>14,}{_share(feature['missing_share']):>9}"
        line += f"{_share(feature['rare_share']):>9}{tops[0]:>9}{tops[1]:>9}{tops[2]:>9}{tops[3]:>10}"
        line += f"{_number(feature['zipf_exponent'], 2):>7}{_number(feature['mean_bag_length'], 2):>7}"
        if last:
            part = next(part for part in feature["parts"] if part["name"] == last)
            line += f"{_share(part['unseen_share']):>9}{_number(part['drift_psi'], 3):>8}"
        lines.append(line)
    for feature in figures["numeric_features"]:
        if last:
            part = next(part for part in feature["parts"] if part["name"] == last)
            median = part["quantiles"].get("0.5")
            line = (
                f"{feature['name']:<16}median {_number(median, 3):>9}  zero or missing {_share(part['zero_share']):>8}"
            )
            lines.append(f"{line}  drift {_number(part['drift_psi'], 3):>7}  (in {last})")
    return "\n".join(lines)


def _top(shares: dict[str, float], top: int) -> float | None:
    """Held by the most frequent `top` values: by all, where there are no more."""
    fitting = [share for key, share in shares.items() if int(key) <= top]
    return max(fitting) if fitting else None


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
