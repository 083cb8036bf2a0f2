"""Sets what capacity planning predicts for a training run beside what the run took.

Every run of trainer/main.py leaves usage.json: bytes of tables and their optimizer state on each rank, memory before
assembly and at its peak, and where the time of its steps went. The prediction is made of the run's own configuration,
rows and plan, for the machine of the hardware file, which should be the one that it ran on. Examples:

  python tools/measure_hardware.py --output this_machine.toml
  python tools/compare_plan.py runs/demo/20260101-120000 --hardware this_machine.toml --json compared.json
  python tools/compare_plan.py runs/days --hardware configs/hardware/h100_80gb_8.toml --data report.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.errors import EXIT_DONE, EXIT_FAILURE, EXIT_INTERRUPTED, ChorusError
from configs.loader import read_hardware
from trainer import quiet_libraries, storage
from trainer.analysis.hardware_bench.measured_file import quick_warning
from trainer.analysis.plan_comparison.comparison import as_json, check_device, compare, lines
from trainer.analysis.plan_comparison.prediction import past_run, predicted
from trainer.analysis.plan_comparison.run_usage import read_usage
from trainer.failures import leave
from trainer.planning.request import hardware_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, reads, predicts, compares, prints; gives the exit code."""
    options = _parser().parse_args(arguments)
    quiet_libraries.silence()
    try:
        usage, hardware = read_usage(options.run), read_hardware(hardware_path(options.hardware))
        check_device(usage, hardware=hardware)
        past = past_run(options.run, usage, data=options.data)
        point = predicted(past, usage, folder=options.run, hardware=hardware)
        found = compare(point, usage, config=past.config, data=past.data, hardware=hardware)
        runs = hardware.calibration.runs
        print(f"{options.run}: {usage.world_size} rank(s), {usage.num_windows} window(s) of steps after the first")
        print(
            f"{hardware.name}, {f'calibrated on {runs} runs' if runs else 'not calibrated'}; rows: {past.data.origin}"
        )
        print("\n".join(lines(found)))
        if warning := quick_warning(hardware):
            print(f"WARNING: {warning}", file=sys.stderr)
        if options.json:
            storage.write_json(options.json, {"run": options.run, "hardware": hardware.name, "figures": as_json(found)})
        return EXIT_DONE
    except ChorusError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: --json: {options.json}: cannot be written ({error.strerror or error})", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/compare_plan.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", metavar="RUN_DIR", help="folder of a training run")
    add(
        "--hardware", required=True, metavar="FILE", help="the machine it ran on: a file, or a name of configs/hardware"
    )
    add("--data", default="", metavar="PATH", help="its rows, where they lie elsewhere now, as tools/plan_capacity.py")
    add("--json", metavar="FILE", help="write the figures there too")
    return parser


if __name__ == "__main__":
    leave(main())
