"""usage.json of a made-up run: round figures, each told apart from the others."""

from __future__ import annotations

from typing import Any

from trainer.step_times import PHASES
from trainer.usage import FORMAT, FORMAT_VERSION

MIB = 1 << 20


def made_window(seconds: float, *, warm_up: bool = False, communication: float = 0.01) -> dict[str, Any]:
    """Ten steps of 100 rows."""
    phases = dict.fromkeys(PHASES, 0.02) | {"communication": communication}
    return {"steps": 10, "rows": 1_000, "seconds": seconds, "phases": phases, "warm_up": warm_up}


def made_rank(*, grown_mib: int = 50, communication: float = 0.01) -> dict[str, Any]:
    """A rank of three windows: 9 s, which warmed up, and 2, 1 and 3 s."""
    before = {"resident_bytes": 300 * MIB, "file_bytes": 100 * MIB, "anonymous_bytes": 200 * MIB}
    after = {"peak_resident_bytes": (330 + grown_mib) * MIB, "file_bytes": 130 * MIB}
    return {
        "allocated": {
            "table_weights": 4_000,
            "table_optimizer": 400,
            "dense_weights": 40,
            "dense_optimizer": 80,
            "host_table_weights": 0,
            "host_table_optimizer": 0,
        },
        "memory": {"before_assembly": before, "assembled": before, "trained": after},
        "windows": [
            made_window(9.0, warm_up=True),
            *(made_window(seconds, communication=communication) for seconds in (2.0, 1.0, 3.0)),
        ],
    }


def made_usage(*ranks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The file, of one rank unless given."""
    of = list(ranks) or [made_rank()]
    body = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "machine": {"device": "cpu"},
        "world_size": len(of),
        "ranks_per_host": len(of),
        "batch_size": 100,
        "data": {"table_rows": {"C1": 10}},
        "complete": True,
        "ranks": of,
    }
    return body | changes
