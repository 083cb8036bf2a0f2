"""The measured file: sections that were measured now, those of before, what was given, and a text that loads again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.hardware_schema import AccessRate, Calibration, Link, LookupRates, MatmulRate, Overheads, Wire
from configs.loader import read_hardware
from trainer.analysis.hardware_bench.machine import Machine
from trainer.analysis.hardware_bench.measured_file import (
    Wishes,
    base_problem,
    header,
    measured_file,
    quick_warning,
    text_of,
    warnings_of,
)
from trainer.analysis.hardware_bench.points import Fit
from trainer.analysis.hardware_bench.sections import SECTIONS, Section

MACHINE = Machine(device="cpu", ranks=2, name="two cores", host_memory_gib=16.0, gpu_memory_gib=0.0, cache_mib=4.0)
ACCESS = AccessRate(id_ns=10.0, row_ns=40.0)
LOOKUP = LookupRates(forward=ACCESS, backward={"sgd": ACCESS})
INTRA = Link(gb_per_s=2.0, latency_us=30.0, collectives={"all_to_all": Wire(gb_per_s=1.0, latency_us=50.0)})
GOOD = Fit(name="forward", num_points=8, median_error=0.05, worst_error=0.2, worst_point="forward ids 5")
KEYS = {
    "memory": {"memory": {"process_gib": 0.4, "gb_per_s": 9.0, "cache_gb_per_s": 40.0, "host_gb_per_s": 0.0}},
    "products": {"matmul": {"fp32": MatmulRate(tflops=0.1, half_n=3.0)}},
    "lookup": {"lookup": LOOKUP, "lookup_cached": LOOKUP},
    "links": {"intra_host": INTRA},
    "disk": {"host": {"disk_gb_per_s": 1.5, "disk_gib": 200.0, "batch_rows_per_s": 4e6}},
    "overheads": {"overheads": Overheads(step_us=900.0, op_us=4.0)},
}
ALL = {name: Section(points=[], keys=keys, fits=[GOOD] if name == "lookup" else []) for name, keys in KEYS.items()}


def test_all_sections_make_a_file_that_loads_again(tmp_path: Path) -> None:
    assert list(ALL) == list(SECTIONS)
    made = measured_file(MACHINE, ALL, wishes=Wishes(price_per_hour=2.5), base=None)
    assert (made.name, made.host.ranks, made.host.price_per_hour, made.host.disk_gb_per_s) == ("two cores", 2, 2.5, 1.5)
    assert (made.memory.cache_mib, made.memory.gb_per_s, made.memory.gib) == (4.0, 9.0, 0.0)
    assert made.inter_host == made.intra_host == INTRA
    assert "torch" in made.measured
    path = tmp_path / "machine.toml"
    comments = header(
        ALL, command="python tools/measure_hardware.py --output x" + " word" * 60, hardware=made, is_quick=True
    )
    text = text_of(made, comments=comments)
    path.write_text(text)
    assert read_hardware(str(path)) == made
    assert max(map(len, text.splitlines())) <= 120
    for told in ("lookup: forward: off by 5%", "inter_host was not measured", "NOT FOR PLANNING"):
        assert told in text


def test_what_was_not_measured_stays_and_a_calibration_goes() -> None:
    base = measured_file(MACHINE, ALL, wishes=Wishes(name="mine", price_per_hour=2.5), base=None)
    base = dataclasses.replace(base, calibration=Calibration(factors={"lookup": 1.2}, runs=9))
    faster = {"lookup": Section(points=[], keys={"lookup": LOOKUP, "lookup_cached": None})}
    made = measured_file(MACHINE, faster, wishes=Wishes(), base=base)
    assert made.lookup_cached is None
    assert made.calibration == Calibration()
    kept = dataclasses.replace(made, lookup_cached=base.lookup_cached, calibration=base.calibration)
    assert kept == base
    (line,) = [line for line in header(faster, command="c", hardware=made, is_quick=False) if "earlier" in line]
    assert line == "Of an earlier measurement: memory, products, links, disk, overheads."


def test_the_link_between_hosts() -> None:
    def inter(wishes: Wishes, **how: object) -> Link:
        return measured_file(MACHINE, ALL, wishes=wishes, base=None, **how).inter_host  # type: ignore[arg-type]

    assert inter(Wishes(inter_host_gb_per_s=5.0)) == Link(gb_per_s=5.0, latency_us=30.0)
    assert inter(Wishes(inter_host_gb_per_s=5.0, inter_host_latency_us=7.0)) == Link(gb_per_s=5.0, latency_us=7.0)
    given = measured_file(MACHINE, ALL, wishes=Wishes(inter_host_gb_per_s=5.0), base=None)
    faster = Link(gb_per_s=8.0)
    again = {"links": Section(points=[], keys={"intra_host": faster})}
    assert measured_file(MACHINE, again, wishes=Wishes(), base=given).inter_host == given.inter_host
    copied = measured_file(MACHINE, ALL, wishes=Wishes(), base=None)
    assert measured_file(MACHINE, again, wishes=Wishes(), base=copied).inter_host == faster


def test_one_rank_takes_the_link_that_is_given() -> None:
    alone = dataclasses.replace(MACHINE, ranks=1)
    sections = ALL | {"links": Section(points=[], keys={})}
    made = measured_file(alone, sections, wishes=Wishes(inter_host_gb_per_s=5.0), base=None)
    assert made.intra_host == made.inter_host == Link(gb_per_s=5.0)
    with pytest.raises(ConfigError, match="--inter-host-gb-per-s: not given"):
        measured_file(alone, sections, wishes=Wishes(), base=None)


def test_a_file_of_other_ranks_is_no_base() -> None:
    base = measured_file(MACHINE, ALL, wishes=Wishes(), base=None)
    assert base_problem(base, MACHINE) is None
    problem = base_problem(base, dataclasses.replace(MACHINE, ranks=4))
    assert problem is not None
    assert "it is of 2 ranks on cpu, and 4 on cpu are measured now" in problem


def test_bad_fits_are_warned_of_by_name() -> None:
    bad = dataclasses.replace(GOOD, name="sgd", median_error=0.6)
    assert warnings_of(ALL) == []
    (line,) = warnings_of(ALL | {"lookup": Section(points=[], keys={}, fits=[GOOD, bad])})
    assert line.startswith("WARNING: fitted badly: lookup: sgd (60%); ")


def test_a_quick_look_says_so_until_all_is_measured_again() -> None:
    quick = measured_file(MACHINE, ALL, wishes=Wishes(is_quick=True), base=None)
    assert quick.measured.startswith("quick, not for planning; 20")
    told = quick_warning(quick)
    assert told is not None and told.startswith("the rates of two cores are of a --quick look")
    part = {"lookup": ALL["lookup"]}
    assert quick_warning(measured_file(MACHINE, part, wishes=Wishes(), base=quick)) == told
    assert quick_warning(measured_file(MACHINE, ALL, wishes=Wishes(), base=None)) is None
