"""Links: latency and rate of each collective are found again; the link's own are in the middle."""

from __future__ import annotations

import pytest

from configs.hardware_schema import COLLECTIVES, Wire
from trainer.analysis.hardware_bench.links import fit_link
from trainer.analysis.hardware_bench.points import Point

PLANTED = {
    "all_to_all": Wire(gb_per_s=2.0, latency_us=50.0),
    "all_reduce": Wire(gb_per_s=4.0, latency_us=90.0),
    "reduce_scatter": Wire(gb_per_s=1.0, latency_us=120.0),
    "all_gather": Wire(gb_per_s=3.0, latency_us=60.0),
}


def planted(name: str, sent: float) -> Point:
    wire = PLANTED[name]
    took = wire.latency_us * 1e-6 + sent / (wire.gb_per_s * 1e9)
    return Point(what=name, size={"sent_bytes": sent}, seconds=(0.9 * took, 1.1 * took))


def test_planted_wires_are_found() -> None:
    points = [planted(name, 2.0**power) for name in COLLECTIVES for power in (9, 14, 18, 22, 25)]
    link, fits = fit_link(points)
    for name, wire in PLANTED.items():
        found = link.wire(name)
        assert (found.gb_per_s, found.latency_us) == pytest.approx((wire.gb_per_s, wire.latency_us), rel=1e-3)
    assert (link.gb_per_s, link.latency_us) == pytest.approx((2.5, 75.0), rel=1e-3)
    assert [fit.name for fit in fits] == list(COLLECTIVES)


def test_noise_without_a_slope_still_gives_a_rate() -> None:
    points = [
        Point(what=name, size={"sent_bytes": sent}, seconds=(took,))
        for name in COLLECTIVES
        for sent, took in ((512.0, 5e-4), (1e6, 4e-4))
    ]
    link, _ = fit_link(points)
    assert link.gb_per_s == pytest.approx(1e6 / 4e-4 / 1e9, rel=1e-3)
