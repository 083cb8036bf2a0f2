"""Writes docs/keys.md and docs/planning_keys.md, every key there is, from the docstrings of the schemas and members."""

from __future__ import annotations

import argparse

from configs.key_reference import markdown, planning_markdown
from modules import members
from trainer import storage


def main() -> None:
    """Writes the files and says where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="docs/keys.md", help="the file to write (default: %(default)s)")
    parser.add_argument("--planning", default="docs/planning_keys.md", help="the second file (default: %(default)s)")
    options = parser.parse_args()
    output = options.output
    storage.write_text(output, markdown({kind: members.config_class(kind) for kind in members.kinds()}))
    storage.write_text(options.planning, planning_markdown())
    print(f"wrote {output} and {options.planning}")


if __name__ == "__main__":
    main()
