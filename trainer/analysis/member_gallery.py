"""The member gallery: every kind with its idea, equation, source, defaults, costs and what was measured of it.

What is said of a kind stands in its file: docs/gallery.md is made of the docstrings, the configs' defaults, the cost
formulas and the measurements in docs/gallery.json.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from configs.section import ArchConfig
from modules import members
from modules.cost import Cost
from modules.member_fields import member_fields

PARTS = ("Idea", "Equation", "Source", "Deviations")
# The shapes of the Criteo logs with embeddings of 16 columns, at which all kinds' costs stand side by side.
NUM_DENSE, NUM_IDS, DIM = 13, 26, 16


@dataclass(frozen=True, kw_only=True)
class KindText:
    """What a kind's file says of itself."""

    title: str
    idea: str
    equation: str
    source: str
    deviations: str

    @staticmethod
    def of(kind: str) -> KindText:
        """From the docstring of the kind's file.

        Raises:
            ValueError: a part is missing; names it.
        """
        text = inspect.getdoc(sys.modules[members.config_class(kind).__module__]) or ""
        title, _, body = text.partition("\n\n")
        found = dict(re.findall(rf"^({'|'.join(PARTS)}): (.*?)(?=^(?:{'|'.join(PARTS)}): |\Z)", body, re.M | re.S))
        missing = [part for part in PARTS if not found.get(part, "").strip()]
        if missing:
            raise ValueError(f"modules/members/{kind}.py: its docstring has no '{missing[0]}:' after the first line")
        return KindText(title=title, **{part.lower(): " ".join(found[part].split()) for part in PARTS})


@dataclass(frozen=True, kw_only=True)
class KindCost:
    """What a kind takes with its defaults at the gallery's shapes."""

    numeric: str  # how it takes numeric features there
    first_order: bool
    cost: Cost

    @staticmethod
    def of(kind: str) -> KindCost:
        """For 13 numeric and 26 id features and 16 columns, numbers taken the kind's published way."""
        arch = members.config_class(kind)(kind=kind)
        dense = [f"I{number}" for number in range(1, NUM_DENSE + 1)]
        twins = {name: f"{name}_id" for name in dense}
        ids = [*(f"C{number}" for number in range(1, NUM_IDS + 1)), *twins.values()]
        fields = member_fields(arch, wish="auto", dense_names=dense, id_features=ids, numeric_ids=twins)
        with torch.device("meta"):
            first_order = bool(fields.build(arch, dim=DIM).first_order)
        return KindCost(numeric=fields.numeric, first_order=first_order, cost=fields.cost(arch, dim=DIM))


def speeds(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the gallery keeps of what tools/bench_members.py wrote."""
    return {
        member["kind"]: {
            precision: {
                way: {key: of[key] for key in ("rows_per_second", "share_of_bound") if key in of}
                for way, of in member[precision].items()
                if way in ("evaluation", "training")
            }
            for precision in found["gemm_flops"]
        }
        for member in found["members"]
    }


def gallery(measured: Mapping[str, Any]) -> str:
    """The gallery in Markdown.

    Args:
        measured: docs/gallery.json: `speed` as tools/bench_members.py writes it, which may be missing.
    """
    kinds = members.kinds()
    lines = [_HEAD.format(dense=NUM_DENSE, ids=NUM_IDS, dim=DIM), *_overview(kinds)]
    lines += _speed(measured["speed"]) if "kinds" in measured.get("speed", {}) else []
    for kind in kinds:
        lines += _kind(kind)
    return "\n".join(lines) + "\n"


_HEAD = """<!-- Written by tools/write_gallery.py from modules/members/ and docs/gallery.json: change those. -->
# The members

Every kind is one file of `modules/members/`, checked against its equation written out in loops. A member is chosen by
`arch = {{ kind = "..." }}`; [members.md](members.md) tells how members take numbers, share tables, are trained, and how
to add one; [benchmarks/](benchmarks/README.md) what they reach on public data, beside what is published.

## At a glance

Defaults at {dense} numeric and {ids} id features, {dim} columns. *Numbers*: how the kind takes numeric features unless
`members.NAME.numeric` says otherwise and where the data have them both as numbers and as ids. *Per id*: a weight per id
beside its embedding. Parameters are dense ones; multiply-adds are products per row of a forward pass, and a training
step takes about three times as many.
"""


def _overview(kinds: Sequence[str]) -> list[str]:
    lines = ["| kind | | numbers | per id | parameters | multiply-adds |", "|---|---|---|---|---:|---:|"]
    for kind in kinds:
        text, cost = KindText.of(kind), KindCost.of(kind)
        name = text.title.partition(":")[0]
        weights = "yes" if cost.first_order else ""
        lines.append(
            f"| [`{kind}`](#{kind}) | {name} | {cost.numeric} | {weights} | {cost.cost.parameters:,} |"
            f" {cost.cost.multiply_adds:,} |"
        )
    return [*lines, ""]


def _speed(found: Mapping[str, Any]) -> list[str]:
    lines = ["## Speed", "", *found["notes"], "", "| kind | forward fp32 | training fp32 | of the bound |"]
    lines[-1] += " forward bf16 | training bf16 | of the bound |"
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for kind, of in found["kinds"].items():
        cells = []
        for precision in ("fp32", "bf16"):
            forward, training = of[precision]["evaluation"], of[precision]["training"]
            cells += [f"{forward['rows_per_second']:,.0f}", f"{training['rows_per_second']:,.0f}"]
            cells.append(f"{training['share_of_bound']:.0%}" if "share_of_bound" in training else "")
        lines.append(f"| `{kind}` | {' | '.join(cells)} |")
    return [*lines, "", "```sh", *found["commands"], "```", ""]


def _kind(kind: str) -> list[str]:
    text, config = KindText.of(kind), members.config_class(kind)
    name, _, clause = text.title.partition(":")
    return [
        f"## {kind}",
        "",
        f"**{name}**:{clause}",
        "",
        text.idea[0].upper() + text.idea[1:],
        "",
        "```text",
        *_clauses(text.equation),
        "```",
        "",
        f"*Source.* {text.source}",
        "",
        f"*Deviations.* {_escaped(text.deviations)}",
        "",
        f"*Numbers.* {', '.join(config.numeric)}",
        "",
        f"*Defaults.* {_defaults(config)}",
        "",
    ]


def _clauses(equation: str) -> list[str]:
    """The equation's clauses, a line each: cut at semicolons outside of brackets."""
    lines, depth = [""], 0
    for character in equation:
        depth += (character in "([{") - (character in ")]}")
        lines[-1] += character
        if character == ";" and depth == 0:
            lines.append("")
    return [line.strip() for line in lines]


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>|\[\]])", r"\\\1", text)


def _defaults(config: type[ArchConfig]) -> str:
    fields = [field for field in dataclasses.fields(config) if field.name != "kind"]
    return ", ".join(f"`{field.name} = {_toml(field.default)}`" for field in fields) or "it has no keys"


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
