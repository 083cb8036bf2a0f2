"""Holds capacity predictions against runs of this machine: measures, calibrates a hardware file, and reports.

Trains 34 ensembles of one to eight members on a made click log in the Criteo layout, on one and two ranks of one thread
and one core each, and three more on four ranks for the bytes of their tables. Ten of them calibrate the hardware
file, the others are held out from it. About 15 minutes on two cores that do nothing else; what has run is in
DIR/measured.json and is not run again.

  measure  trains what has not run yet
  fit      writes [calibration] of the hardware file, from the calibration runs alone
  report   predicts every run and writes DIR/report.md, DIR/report.json and DIR/scatter.png

Example:

  python tools/measure_hardware.py --output this_machine.toml
  python tools/study_capacity.py --folder study --hardware this_machine.toml
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError, ConfigError
from configs.hardware_schema import Calibration, HardwareFile
from configs.loader import read_hardware
from trainer import quiet_libraries, storage
from trainer.analysis.plan_comparison.calibration_fit import fit, with_calibration
from trainer.analysis.plan_comparison.study_cases import study_cases
from trainer.analysis.plan_comparison.study_points import study_points, uncalibrated
from trainer.analysis.plan_comparison.study_report import as_json, draw, markdown
from trainer.analysis.plan_comparison.study_runs import Study
from trainer.clock import clock
from trainer.failures import leave
from trainer.planning.request import hardware_path

SECTIONS = ("measure", "fit", "report")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, measures, fits, reports; gives the exit code."""
    options = _parser().parse_args(arguments)
    quiet_libraries.silence()
    sections = SECTIONS if options.only is None else (options.only,)
    try:
        hardware = _hardware(options, sections)
        study = Study(options.folder, say=_say)
        if "measure" in sections:
            study.measure(study_cases())
        if hardware is not None and "fit" in sections:
            hardware = _fitted(hardware, study)
            _write_calibration(options.hardware, hardware.calibration)
        if hardware is not None and "report" in sections:
            _report(study, hardware=hardware)
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {options.folder}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on with what is in {options.folder}", file=sys.stderr)
        return EXIT_INTERRUPTED


def _hardware(options: argparse.Namespace, sections: Sequence[str]) -> HardwareFile | None:
    """Read before anything is measured; None where nothing needs it."""
    if options.hardware is None:
        if sections != ("measure",):
            raise ConfigError("--hardware: none; name the file of this machine, or take --only measure")
        return None
    options.hardware = hardware_path(options.hardware)
    return read_hardware(options.hardware)


def _fitted(hardware: HardwareFile, study: Study) -> HardwareFile:
    plain = uncalibrated(hardware)
    points = study_points(study.measured(), hardware=plain, use="calibration", say=_say)
    return dataclasses.replace(plain, calibration=fit(points, hardware=plain))


def _write_calibration(path: str, calibration: Calibration) -> None:
    storage.write_text(path, with_calibration(storage.read_text(path), calibration))
    if read_hardware(path).calibration != calibration:
        raise ConfigError(f"--hardware: {path} has a calibration in a form that fit cannot replace; remove it")
    _say(f"{path}: [calibration] is of {calibration.runs} runs")


def _report(study: Study, *, hardware: HardwareFile) -> None:
    body = study.measured()
    points = study_points(body, hardware=hardware, say=_say)
    text = markdown(points, hardware=hardware, machine=body["machine"])
    storage.write_text(study.place("report.md"), text)
    storage.write_json(study.place("report.json"), as_json(points))
    draw(points, path=study.place("scatter.png"))
    print(text, end="")
    _say(f"written: {study.place('report.md')}, report.json, scatter.png")


_STARTED = time.monotonic()


def _say(text: str) -> None:
    print(f"{clock(time.monotonic() - _STARTED)}: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/study_capacity.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", required=True, metavar="DIR", help="where rows, runs and figures lie")
    add("--hardware", metavar="FILE", help="of this machine, by tools/measure_hardware.py; fit writes into it")
    add("--only", choices=SECTIONS, help="one of the three (default: all, one after the other)")
    return parser


if __name__ == "__main__":
    leave(main())
