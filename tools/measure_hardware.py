"""Measures this machine and writes a hardware file of it, for tools/plan_capacity.py.

Sections (default: all of them, one after the other):

  memory     elementwise operations on tensors, in the cache and past it; what a process takes before the first table
  products   forward and backward products of linear layers by shape, in fp32 and bf16
  lookup     FBGEMM's pooled lookup and its updates by dim, bag size and skew; tables past the cache, and within it
  links      all-to-all, all-reduce, reduce-scatter and all-gather between the ranks of this host, 1 KiB to 64 MiB
  disk       a file read by all ranks; prepared rows made into batches
  overheads  real training runs on a few rows: what a step, a table and an operation take whatever their size

Everything is measured in --ranks processes at once, one thread each, since that is how ranks share a machine's memory
and caches. Rates are fitted so that relative errors are small; the file's head says how well that went, and a fit that
went badly is warned of. Let the machine do nothing else meanwhile: it takes one to four minutes. The link
between hosts cannot be measured on one. Examples:

  python tools/measure_hardware.py --output my_host.toml --price-per-hour 1.9
  python tools/measure_hardware.py --output my_host.toml --sections lookup links --points my_host.json
  python tools/measure_hardware.py --output h100.toml --name "8 x H100" --inter-host-gb-per-s 45
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from configs.hardware_schema import HardwareFile
from configs.loader import read_hardware
from trainer import storage
from trainer.analysis.bench.figures import machine as machine_facts
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.hardware_progress import HardwareProgress
from trainer.analysis.hardware_bench.machine import Machine, measured_on, num_ranks_here, this_machine
from trainer.analysis.hardware_bench.measured_file import (
    Wishes,
    base_problem,
    header,
    measured_file,
    text_of,
    warnings_of,
)
from trainer.analysis.hardware_bench.rank_processes import RankProcesses
from trainer.analysis.hardware_bench.sections import SECTIONS, HardwareBench, Section
from trainer.failures import leave
from trainer.output_files import check_output_files

_START_SECONDS = 8.0  # of the processes


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures, writes the file; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(words)
    try:
        _check(options)
        machine = this_machine(device=options.device, ranks=options.ranks)
        base = _base(options, machine)
        sections = _measure(options, machine)
        hardware = measured_file(machine, sections, wishes=_wishes(options), base=base)
        command = shlex.join(["python", "tools/measure_hardware.py", *words])
        lines = header(sections, command=command, hardware=hardware, is_quick=options.quick)
        storage.write_text(options.output, text_of(hardware, comments=lines))
        if options.points:
            _keep_points(options, sections)
        for line in warnings_of(sections):
            print(line, file=sys.stderr)
        print(f"{options.output}: {hardware.name}; its head says how well the rates fit what was measured")
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or options.output}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("\nstopped; nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/measure_hardware.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="FILE.toml", help="the hardware file; one that is there is replaced")
    add(
        "--sections",
        nargs="+",
        default=list(SECTIONS),
        metavar="SECTION",
        help=f"of {', '.join(SECTIONS)}: measure these, and keep the others of the file that is there (default: all)",
    )
    add("--ranks", type=int, metavar="N", help="of this host (default: one for each GPU, or each physical core)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda where there is one")
    add(
        "--folder",
        metavar="DIR",
        help="on the disk that is to be measured (default: that of the file, or for s3:// this one)",
    )
    add("--disk-mib", type=int, metavar="N", help="of the file that is read there for a while (default: 1024)")
    add("--points", metavar="FILE.json", help="keep everything that was measured, point for point")
    add("--quick", action="store_true", help="a few small points, to see that all works; the file is not for planning")
    facts = parser.add_argument_group("what nothing here can measure")
    add = facts.add_argument
    add("--name", metavar="TEXT", help="what to call the machine (default: its processor or GPU)")
    add("--price-per-hour", type=float, metavar="X", help="of the host, in any currency (default: not known)")
    add(
        "--inter-host-gb-per-s",
        type=float,
        metavar="X",
        help="GB/s one way that a rank reaches to other hosts (default: as within this one)",
    )
    add("--inter-host-latency-us", type=float, metavar="X", help="of a collective between hosts (default: as within)")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuses what cannot be, and fills in what depends on the machine."""
    check_output_files({"--output": options.output, "--points": options.points})
    unknown = [section for section in options.sections if section not in SECTIONS]
    if unknown:
        raise ConfigError(f"--sections: {unknown[0]!r} is none of {', '.join(SECTIONS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device: 'cuda', but torch sees no GPU; take cpu")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    most = num_ranks_here(options.device) if options.device == "cuda" else os.cpu_count() or 1
    if options.ranks is None:
        options.ranks = num_ranks_here(options.device)
    if not 1 <= options.ranks <= most:
        of = "GPUs" if options.device == "cuda" else "cores"
        raise ConfigError(f"--ranks: {options.ranks} is not from 1 to {most}, the {of} of this host; give one a rank")
    for key, value in {"--disk-mib": options.disk_mib, "--inter-host-gb-per-s": options.inter_host_gb_per_s}.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{key}: {value} must be above zero")
    for key in ("price_per_hour", "inter_host_latency_us"):
        value = getattr(options, key)
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"--{key.replace('_', '-')}: {value} must not be negative")
    if options.inter_host_latency_us is not None and options.inter_host_gb_per_s is None:
        raise ConfigError("--inter-host-latency-us: needs --inter-host-gb-per-s beside it")
    if options.folder is not None and not (os.path.isdir(options.folder) and os.access(options.folder, os.W_OK)):
        raise ConfigError(f"--folder: {options.folder!r} is not a folder that can be written to; name another one")
    if options.name is not None and not options.name.strip():
        raise ConfigError("--name: empty; give the machine a name")
    if options.ranks == 1 and "links" in options.sections and options.inter_host_gb_per_s is None:
        raise ConfigError(
            "--inter-host-gb-per-s: not given, and one rank has nobody on this host to measure a link with; give what"
            " a rank reaches to other hosts, in GB/s one way"
        )


def _base(options: argparse.Namespace, machine: Machine) -> HardwareFile | None:
    """The file that is there, where only some sections are measured."""
    missing = [section for section in SECTIONS if section not in options.sections]
    if not missing:
        return None
    if not storage.is_file(options.output):
        raise ConfigError(
            f"--sections: {missing[0]} is not among them, and there is no file {options.output!r} to keep it of;"
            " measure all sections first"
        )
    base = read_hardware(options.output)
    problem = base_problem(base, machine)
    if problem:
        raise ConfigError(f"{options.output}: {problem}")
    return base


def _wishes(options: argparse.Namespace) -> Wishes:
    return Wishes(
        name=options.name,
        price_per_hour=options.price_per_hour,
        inter_host_gb_per_s=options.inter_host_gb_per_s,
        inter_host_latency_us=options.inter_host_latency_us,
        is_quick=options.quick,
    )


def _measure(options: argparse.Namespace, machine: Machine) -> dict[str, Section]:
    effort = Effort.quickest() if options.quick else Effort()
    if options.disk_mib is not None:
        effort = Effort(quick=effort.quick, repeats=effort.repeats, seconds=effort.seconds, disk_mib=options.disk_mib)
    wanted = [section for section in SECTIONS if section in options.sections]
    progress = HardwareProgress({"start": _START_SECONDS, **{name: SECTIONS[name] for name in wanted}})
    progress.tell("start", f"{machine.ranks} processes on {machine.device}", done=0, total=1)
    beside = "" if storage.is_remote(options.output) else os.path.dirname(options.output)
    parent = options.folder or beside or "."
    with (
        tempfile.TemporaryDirectory(prefix="measure_hardware-", dir=parent) as folder,
        RankProcesses(machine.ranks, device=machine.device) as ranks,
    ):
        bench = HardwareBench(ranks, machine=machine, effort=effort, folder=folder, progress=progress)
        return {section: bench.measure(section) for section in wanted}


def _keep_points(options: argparse.Namespace, sections: Mapping[str, Section]) -> None:
    """All points, and those of the sections that were not measured now."""
    kept = storage.read_json(options.points) if storage.is_file(options.points) else {}
    before = kept.get("sections", {}) if isinstance(kept, dict) else {}
    now = {name: {"measured": measured_on(), **section.as_json()} for name, section in sections.items()}
    body = {"machine": machine_facts(), "ranks": options.ranks, "device": options.device, "sections": before | now}
    storage.write_json(options.points, body)


if __name__ == "__main__":
    leave(main())
