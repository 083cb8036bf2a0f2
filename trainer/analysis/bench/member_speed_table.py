"""What member_speed measured, as it is kept and as tables for people."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.analysis.bench.member_speed import MeasuredKind, SpeedBench

Rates = Mapping[tuple[str, str, str], Sequence[float]]
Parts = Mapping[tuple[str, str], Mapping[str, float]]
_MOST_PARTS = 3
_LEAST_PART = 0.02


def as_json(bench: SpeedBench, rates: Rates, parts: Parts) -> dict[str, Any]:
    """All that was measured: gemm_flops by precision, and for each kind its cost, its rates and its parts of a step."""
    return {
        "settings": dataclasses.asdict(bench.settings),
        "gemm_flops": {precision: statistics.median(runs) for precision, runs in bench.gemm_flops.items()},
        "gemm_flops_runs": {precision: list(runs) for precision, runs in bench.gemm_flops.items()},
        "members": [_of_kind(measured, bench, rates, parts) for measured in bench.measured],
    }


def _of_kind(measured: MeasuredKind, bench: SpeedBench, rates: Rates, parts: Parts) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": measured.kind,
        "arch": dataclasses.asdict(measured.config),
        "numeric": measured.fields.numeric,
        "parameters": measured.cost.parameters,
        "multiply_adds": measured.cost.multiply_adds,
    }
    for precision in bench.precisions:
        of_precision: dict[str, Any] = {}
        for (kind, at, way), runs in rates.items():
            if (kind, at) == (measured.kind, precision):
                of_precision[way] = _of_way(measured, way, runs, gemm_flops=bench.gemm_flops[precision])
                if way.startswith("stacked_"):
                    alone = rates[kind, at, way.removeprefix("stacked_")]
                    of_precision[way]["times_one_by_one"] = _median_ratio(runs, alone)
        if (measured.kind, precision) in parts:
            of_precision["training_parts"] = dict(parts[measured.kind, precision])
        found[precision] = of_precision
    return found


def _of_way(measured: MeasuredKind, way: str, runs: Sequence[float], *, gemm_flops: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"rows_per_second": statistics.median(runs), "runs": list(runs)}
    bounds = [measured.bound(gemm_flops=rate, training=way.endswith("training")) for rate in gemm_flops]
    known = [bound for bound in bounds if bound is not None]
    if known:
        found["bound_rows_per_second"] = statistics.median(known)
        found["share_of_bound"] = _median_ratio(runs, known)
    return found


def _median_ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    """The median of what two things are to each other in the same rounds, so that a machine's bad minute drops out."""
    return statistics.median(value / base for value, base in zip(values, bases, strict=True))


def as_text(found: Mapping[str, Any]) -> str:
    """The table of what `as_json` gives."""
    settings, gemm = found["settings"], found["gemm_flops"]
    alone = settings["copies"] == 1
    header = _HEADER if alone else _COPIES_HEADER
    rows = [
        (_row if alone else _copies_row)(member, precision, member[precision])
        for member in found["members"]
        for precision in gemm
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        f"{settings['batch_size']:,} rows a batch, {settings['fields']} id fields of {settings['dim']} columns,"
        f" {settings['numeric']} numeric, {settings['device']}; medians of {settings['rounds']} rounds in turns",
        f"matrix products of {settings['size']:,} x {settings['size']:,}: "
        + ", ".join(f"{precision} {rate / 1e9:,.0f} Gflop/s" for precision, rate in gemm.items()),
        "",
    ]
    for row in (header, *rows):
        cells = [
            f"{cell:<{width}}" if title in _WORDS else f"{cell:>{width}}"
            for title, cell, width in zip(header, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


_HEADER = (
    "kind",
    "",
    "parameters",
    "multiply-adds",
    "evaluation rows/s",
    "of bound",
    "training rows/s",
    "of bound",
    "a training step's time beside matrix products",
)
_WORDS = (_HEADER[0], _HEADER[1], _HEADER[-1])  # columns of words


def _row(member: Mapping[str, Any], precision: str, at: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        member["kind"],
        precision,
        f"{member['parameters']:,}",
        f"{member['multiply_adds']:,}",
        f"{at['evaluation']['rows_per_second']:,.0f}",
        _share(at["evaluation"]),
        f"{at['training']['rows_per_second']:,.0f}",
        _share(at["training"]),
        _rest(at["training_parts"]),
    )


def _share(way: Mapping[str, Any]) -> str:
    return f"{way['share_of_bound']:.1%}" if "share_of_bound" in way else "-"


def _rest(parts: Mapping[str, float]) -> str:
    """What is no matrix product, the largest first."""
    others = sorted(((share, name) for name, share in parts.items() if name != "matrix products"), reverse=True)
    told = [f"{name} {share:.0%}" for share, name in others[:_MOST_PARTS] if share >= _LEAST_PART]
    return f"{1 - parts['matrix products']:.0%}: " + ", ".join(told)


_COPIES_HEADER = (
    "kind",
    "",
    "evaluation one by one",
    "stacked",
    "times",
    "training one by one",
    "stacked",
    "times",
)


def _copies_row(member: Mapping[str, Any], precision: str, at: Mapping[str, Any]) -> tuple[str, ...]:
    cells = []
    for way in ("evaluation", "training"):
        cells += [
            f"{at[way]['rows_per_second']:,.0f}",
            f"{at['stacked_' + way]['rows_per_second']:,.0f}",
            f"{at['stacked_' + way]['times_one_by_one']:.2f}",
        ]
    return (member["kind"], precision, *cells)
