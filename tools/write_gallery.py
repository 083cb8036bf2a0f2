"""Writes docs/gallery.md, every member kind with its equation, costs and measurements.

Without --speed it is written anew from the members' files and the measurements that docs/gallery.json keeps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from trainer import storage
from trainer.analysis.member_gallery import gallery, speeds

DATA, PAGE = "docs/gallery.json", "docs/gallery.md"


def main() -> None:
    """Takes new measurements in and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--speed", metavar="FILE", help="what tools/bench_members.py --json wrote, of all kinds or some"
    )
    given = parser.parse_args()
    measured: dict[str, Any] = storage.read_json(DATA)
    if given.speed:
        known = measured["speed"].get("kinds", {})
        measured["speed"] |= {"kinds": dict(sorted((known | speeds(storage.read_json(given.speed))).items()))}
        storage.write_json(DATA, measured)
    storage.write_text(PAGE, gallery(measured))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
