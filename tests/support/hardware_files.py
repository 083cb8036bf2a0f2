"""Machines for tests."""

from __future__ import annotations

from configs.hardware_schema import (
    AccessRate,
    Calibration,
    HardwareFile,
    Host,
    Link,
    LookupRates,
    MatmulRate,
    Memory,
    Overheads,
)


def small_machine(*, ranks: int = 2, calibration: Calibration | None = None) -> HardwareFile:
    """A CPU host of 16 GiB with round rates."""
    access = AccessRate(id_ns=20.0, row_gb_per_s=2.0)
    return HardwareFile(
        name="small",
        device="cpu",
        host=Host(ranks=ranks, memory_gib=16.0, batch_rows_per_s=5e6),
        memory=Memory(gb_per_s=10.0, process_gib=0.4),
        matmul={"fp32": MatmulRate(tflops=0.05)},
        lookup=LookupRates(
            forward=access, backward={rule: access for rule in ("sgd", "adagrad", "rowwise_adagrad", "adam")}
        ),
        intra_host=Link(gb_per_s=1.0, latency_us=100.0),
        inter_host=Link(gb_per_s=0.5, latency_us=200.0),
        overheads=Overheads(step_us=1_000.0, table_us=40.0, replica_us=50.0, op_us=10.0),
        calibration=calibration or Calibration(),
    )
