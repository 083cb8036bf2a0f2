"""Writes docs/keys.md and its like for planning and benchmarks: every key there is, from docstrings of schemas."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from configs.key_reference import benchmark_markdown, markdown, planning_markdown
from modules import members
from trainer import storage


def main() -> None:
    """Writes the files and says where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="docs/keys.md", help="the file to write (default: %(default)s)")
    parser.add_argument("--planning", default="docs/planning_keys.md", help="the second file (default: %(default)s)")
    parser.add_argument("--benchmarks", default="docs/benchmarks/keys.md", help="the third (default: %(default)s)")
    options = parser.parse_args()
    output = options.output
    storage.write_text(output, markdown({kind: members.config_class(kind) for kind in members.kinds()}))
    storage.write_text(options.planning, planning_markdown())
    storage.write_text(options.benchmarks, benchmark_markdown())
    print(f"wrote {output}, {options.planning} and {options.benchmarks}")


if __name__ == "__main__":
    main()
