"""Collectives between the ranks of this host: their latency and their rate by what a rank sends to others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from configs.hardware_schema import COLLECTIVES, Link, Wire
from sharding.measuring.collectives import Collectives
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.points import Fit, Point, fit_seconds, rounded
from trainer.analysis.hardware_bench.rank_processes import RankHere

_SIZES = tuple(2**power for power in (10, 13, 16, 18, 20, 22, 24, 26))
_QUICK_SIZES = _SIZES[:4:2]
_WINDOW_BYTES = 32 << 20  # so that a window of calls lasts about as long for each size
_MOST_CALLS = 50


def measure_collectives(here: RankHere, port: int, effort: Effort) -> list[Point]:
    """All of them at all sizes, between all ranks."""
    points = []
    with here.world(port=port) as runtime:
        collectives = Collectives(runtime.group, device=here.device)
        for name in COLLECTIVES:
            for size in _QUICK_SIZES if effort.quick else _SIZES:
                num_calls = max(1, min(_MOST_CALLS, _WINDOW_BYTES // size))
                runtime.beat(f"{name} of {size} bytes")
                collectives.seconds(name, num_bytes=size, num_calls=min(3, num_calls))
                times = [collectives.seconds(name, num_bytes=size, num_calls=num_calls) for _ in range(effort.repeats)]
                sent = collectives.sent_bytes(name, num_bytes=size)
                points.append(Point(what=name, size={"sent_bytes": sent}, seconds=(statistics.median(times),)))
    return points


def fit_link(points: Sequence[Point]) -> tuple[Link, list[Fit]]:
    """Seconds = latency + sent bytes / rate, for each of them; the link's own figures are their medians."""
    wires, fits = {}, []
    for name in COLLECTIVES:
        of = [point for point in points if point.what == name]
        columns = np.array([[1.0, point.size["sent_bytes"]] for point in of])
        (latency, per_byte), fit = fit_seconds(name, of, columns)
        # All noise and no slope: the fastest that was seen.
        rate = 1 / per_byte if per_byte else max(point.size["sent_bytes"] / point.mean_seconds for point in of)
        wires[name] = Wire(gb_per_s=rounded(rate / 1e9), latency_us=rounded(latency * 1e6))
        fits.append(fit)
    link = Link(
        gb_per_s=rounded(statistics.median(wire.gb_per_s for wire in wires.values())),
        latency_us=rounded(statistics.median(wire.latency_us for wire in wires.values())),
        collectives=wires,
    )
    return link, fits
