"""A machine with round rates, so that a step's time can be said in the head."""

from __future__ import annotations

from configs.hardware_schema import (
    AccessRate,
    HardwareFile,
    Host,
    Link,
    LookupRates,
    MatmulRate,
    Memory,
    Overheads,
    Wire,
)


def round_machine(**changes: object) -> HardwareFile:
    """Two hosts' worth of rates: 1 TFLOP/s, 100 GB/s of memory, 10 and 1 GB/s of links; `changes` replace sections."""
    parts: dict[str, object] = {
        "name": "round",
        "device": "cpu",
        "host": Host(ranks=2, memory_gib=64, disk_gb_per_s=1.0, batch_rows_per_s=1e6),
        "memory": Memory(gb_per_s=100.0),
        "matmul": {"fp32": MatmulRate(tflops=1.0)},
        "lookup": LookupRates(
            forward=AccessRate(id_ns=10.0, id_gb_per_s=1.0),
            backward={"sgd": AccessRate(row_ns=100.0), "adagrad": AccessRate(row_ns=200.0, row_gb_per_s=1.0)},
        ),
        "intra_host": Link(gb_per_s=10.0, latency_us=1.0),
        "inter_host": Link(gb_per_s=1.0, latency_us=10.0, collectives={"all_reduce": Wire(gb_per_s=2.0)}),
        "overheads": Overheads(),
        "overlap": "none",
    }
    return HardwareFile(**(parts | changes))  # type: ignore[arg-type]
