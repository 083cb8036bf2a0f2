"""Writes docs/gallery.md, every member kind with its equation, costs and measurements.

Without --speed and --run it is written anew from the members' files and the measurements that docs/gallery.json keeps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from trainer import storage
from trainer.analysis.member_gallery import gallery, speeds
from trainer.analysis.run_quality import run_quality

DATA, PAGE = "docs/gallery.json", "docs/gallery.md"


def main() -> None:
    """Takes new measurements in and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", metavar="FILE", help="what tools/bench_members.py --json wrote")
    parser.add_argument("--run", metavar="FOLDER", help="a finished run of configs/frappe_x1.toml")
    parser.add_argument("--machine", default="", help="what --run ran on, in words, as '2 CPU cores'")
    given = parser.parse_args()
    measured: dict[str, Any] = storage.read_json(DATA)
    if given.speed:
        measured["speed"] |= {"kinds": speeds(storage.read_json(given.speed))}
    if given.run:
        machine = given.machine or measured["frappe_x1"].get("machine", "")
        measured["frappe_x1"] |= run_quality(given.run) | {"machine": machine}
    if given.speed or given.run:
        storage.write_json(DATA, measured)
    storage.write_text(PAGE, gallery(measured))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
