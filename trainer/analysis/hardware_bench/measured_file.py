"""MeasuredFile: the hardware file of a machine that was measured, and the text that says how far it can be trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError
from configs.hardware_schema import Calibration, HardwareFile, Host, Link, Memory, Overheads
from configs.loader import dump_hardware
from trainer.analysis.hardware_bench.machine import Machine, measured_on
from trainer.analysis.hardware_bench.sections import SECTIONS, Section

_RESERVE_SHARE = {"cpu": 0.1, "cuda": 0.15}  # a GPU's memory splinters, and its peaks cannot go elsewhere
_WIDTH = 118
_QUICK = "quick, not for planning; "  # before the date of HardwareFile.measured


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a file says that nothing can measure."""

    name: str | None = None  # None: as the base has it, else what the machine calls itself
    price_per_hour: float | None = None
    inter_host_gb_per_s: float | None = None
    inter_host_latency_us: float | None = None
    is_quick: bool = False  # the file says so, and who plans with it is warned


def measured_file(
    machine: Machine, sections: Mapping[str, Section], *, wishes: Wishes, base: HardwareFile | None
) -> HardwareFile:
    """The file.

    Args:
        machine: What was measured.
        sections: Those that were measured, by name.
        wishes: The rest.
        base: An earlier file of this machine, for sections that were not measured; None: all were.
    """
    found: dict[str, Any] = {key: value for section in sections.values() for key, value in section.keys.items()}
    kept = {} if base is None else {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    intra = found.get("intra_host", kept.get("intra_host"))
    inter = _inter_host(wishes, intra=intra, kept=kept)
    price = {} if wishes.price_per_hour is None else {"price_per_hour": wishes.price_per_hour}
    host = _own(kept.get("host")) | found.pop("host", {}) | price
    host |= {"ranks": machine.ranks, "memory_gib": machine.host_memory_gib}
    memory = {"reserve_share": _RESERVE_SHARE[machine.device]} | _own(kept.get("memory")) | found.pop("memory", {})
    memory |= {"gib": machine.gpu_memory_gib, "cache_mib": machine.cache_mib}
    is_quick = wishes.is_quick or (base is not None and base.measured.startswith(_QUICK))
    given: dict[str, Any] = {
        "name": wishes.name or kept.get("name") or machine.name,
        "device": machine.device,
        "measured": _QUICK * is_quick + measured_on(),
        "sources": ("tools/measure_hardware.py on the machine itself",),
        "host": Host(**host),
        "memory": Memory(**memory),
        "intra_host": intra or inter,
        "inter_host": inter,
        "overlap": "data" if machine.device == "cpu" else "data_and_ids",
        "calibration": Calibration(),  # what was fitted to the rates of before does not go with these
    }
    return HardwareFile(**{"overheads": Overheads(), **kept, **found, **given})


def _own(section: Host | Memory | None) -> dict[str, Any]:
    return {} if section is None else dataclasses.asdict(section)


def _inter_host(wishes: Wishes, *, intra: Link | None, kept: Mapping[str, Any]) -> Link:
    before: Link | None = kept.get("inter_host")
    if before is not None and before == kept["intra_host"]:
        before = None  # it was a copy then, too
    link = before or intra
    if wishes.inter_host_gb_per_s is not None:
        latency = wishes.inter_host_latency_us
        return Link(gb_per_s=wishes.inter_host_gb_per_s, latency_us=latency or (link.latency_us if link else 0.0))
    if link is None:
        raise ConfigError(
            "--inter-host-gb-per-s: not given, and one rank has nobody on this host to measure a link with; give what"
            " a rank reaches to other hosts, in GB/s one way"
        )
    return link


def quick_warning(hardware: HardwareFile) -> str | None:
    """What to tell who plans with a machine that was only looked at; None: nothing."""
    if not hardware.measured.startswith(_QUICK):
        return None
    return f"the rates of {hardware.name} are of a --quick look and not for planning; measure it without --quick"


def base_problem(base: HardwareFile, machine: Machine) -> str | None:
    """Why sections of this file do not go with what is measured now; None: they do."""
    if (base.device, base.host.ranks) != (machine.device, machine.ranks):
        return (
            f"it is of {base.host.ranks} ranks on {base.device}, and {machine.ranks} on {machine.device} are measured"
            " now, whose rates differ; give the same --ranks and --device, or measure all sections"
        )
    return None


def header(sections: Mapping[str, Section], *, command: str, hardware: HardwareFile, is_quick: bool) -> list[str]:
    """Lines for the top of the file: how it came about, how far it can be trusted, what nothing has measured."""
    lines = [
        "Measured by",
        f"  {command}",
        "Rates are of one rank while all ranks of the host work: medians of repeats.",
    ]
    if is_quick:
        lines.append("--quick: a few small points in a few milliseconds each. NOT FOR PLANNING.")
    rest = [name for name in SECTIONS if name not in sections]
    if rest:
        lines.append(f"Of an earlier measurement: {', '.join(rest)}.")
    for name, section in sections.items():
        lines += [f"{name}: {fit.sentence()}" for fit in section.fits]
        lines += [f"{name}: {remark}" for remark in section.remarks]
    lines += warnings_of(sections)
    if hardware.inter_host == hardware.intra_host:
        lines.append("inter_host was not measured: it is a copy of intra_host; --inter-host-gb-per-s gives another.")
    if not hardware.host.price_per_hour:
        lines.append("host.price_per_hour is not known; --price-per-hour gives it.")
    return lines


def warnings_of(sections: Mapping[str, Section]) -> list[str]:
    """One line that names the fits which say too little of their points; none where all are good."""
    bad = [
        f"{name}: {fit.name} ({fit.median_error:.0%})"
        for name, section in sections.items()
        for fit in section.fits
        if not fit.is_good
    ]
    if not bad:
        return []
    return [
        f"WARNING: fitted badly: {', '.join(bad)}; the machine was busy, or the model does not fit it: measure these"
        " sections again when it is quiet, with --sections"
    ]


def text_of(hardware: HardwareFile, *, comments: Sequence[str]) -> str:
    """The file's text."""
    lines = []
    for comment in comments:
        indent = " " * (len(comment) - len(comment.lstrip()))
        line = "#"
        for word in comment.split():
            if len(line) + 1 + len(word) > _WIDTH and line.strip("# "):
                lines.append(line)
                line = f"#   {indent}"
            line += f" {word}" if line != "#" or not indent else f" {indent}{word}"
        lines.append(line)
    return "\n".join([*lines, "", dump_hardware(hardware)])
