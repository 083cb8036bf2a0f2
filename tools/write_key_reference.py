"""Writes docs/keys.md, every key of a run, from the docstrings of the schema and the members."""

from __future__ import annotations

import argparse

from configs.key_reference import markdown
from modules import members
from trainer import storage


def main() -> None:
    """Writes the file and says where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="docs/keys.md", help="the file to write (default: %(default)s)")
    output = parser.parse_args().output
    storage.write_text(output, markdown({kind: members.config_class(kind) for kind in members.kinds()}))
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
