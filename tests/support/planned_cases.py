"""Ensembles, machines and a planner of made-up figures, for tests of what is built around planning."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from configs.hardware_schema import AccessRate, HardwareFile, Host, Link, LookupRates, MatmulRate, Memory
from configs.loader import read_run
from configs.schema import RunConfig
from modules import members
from trainer.data.reading.source import SourceFeatures
from trainer.planning.byte_sum import byte_sum, room
from trainer.planning.capacity_point import CapacityPoint, Refusal, StepSeconds
from trainer.planning.data_facts import DataFacts, IdTraffic
from trainer.planning.plans import refused
from trainer.planning.study import Case, Variant

MIB = 2**20
ROWS = {"C1": 40_000, "C2": 20_000, "C3": 10}
RUN = """
[run]
name = "planned"
[train]
batch_size = 256
[score]
batch_size = 64
[tables.shared]
dim = 16
optimizer = "adagrad"
[tables.own]
dim = 16
optimizer = "adagrad"
[members.deep]
arch = { kind = "mlp", hidden = [8] }
[members.solo]
tables = "own"
copies = 2
arch = { kind = "mlp", hidden = [4] }
"""


def run_of(*overrides: str, text: str = RUN) -> RunConfig:
    """A run, with words put over it."""
    return read_run(
        text, source="run", overrides=overrides, resolve_arch=members.config_class, arch_kinds=members.kinds()
    )


def facts(rows: dict[str, int] | None = None) -> DataFacts:
    """Rows in numbers."""
    tables = ROWS if rows is None else rows
    return DataFacts(
        features=SourceFeatures(dense_names=("I1",), table_rows=tables, dictionary="made up"),
        traffic={name: IdTraffic(mean_ids=2.0) for name in tables},
        train_rows=1_000_000,
        score_rows=100_000,
        stored_bytes=40,
        origin="made up",
    )


def variant(*overrides: str, rows: dict[str, int] | None = None) -> Variant:
    """An ensemble and its rows; nothing is swept."""
    return Variant(swept={}, config=run_of(*overrides), data=facts(rows))


def machine(
    mib: float, *, device: Literal["cpu", "cuda"] = "cuda", ranks: int = 4, price: float = 0.0, **keys: Any
) -> HardwareFile:
    """A host of `ranks` with so much memory each, a tenth of it reserved, and 100 times as much on a GPU's host."""
    rate = AccessRate(id_ns=1.0)
    is_cpu = device == "cpu"
    given: dict[str, Any] = {
        "name": "box",
        "device": device,
        "host": Host(ranks=ranks, memory_gib=ranks * mib / 1024 * (1 if is_cpu else 100), price_per_hour=price),
        "memory": Memory(
            gib=0.0 if is_cpu else mib / 1024, reserve_share=0.1, gb_per_s=100.0, host_gb_per_s=0.0 if is_cpu else 10.0
        ),
        "matmul": {"fp32": MatmulRate(tflops=1.0)},
        "lookup": LookupRates(forward=rate, backward={"adagrad": rate, "rowwise_adagrad": rate, "sgd": rate}),
        "intra_host": Link(gb_per_s=100.0),
        "inter_host": Link(gb_per_s=10.0),
    }
    return HardwareFile(**(given | keys))


class MadeUpPlanner:
    """Plans by formula: a rank holds the byte sum and 4 KiB a row of its batch.

    A step takes 1 ms, 10 µs a row and 1 ns a dense byte.

    Attributes:
        cases: What was planned, in order.
    """

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def __call__(self, case: Case) -> CapacityPoint:
        """The point."""
        self.cases.append(case)
        blank = refused(case, Refusal(where="planner", need_bytes=0, capacity_bytes=0, sentence="blank"))
        total = byte_sum(
            case.variant.config,
            features=case.variant.data.features,
            purpose=case.purpose,
            device=case.hardware.device,
        )
        tables = total.least_per_rank(case.hardware, world_size=case.world_size)
        buffers = 4096 * blank.rows_per_rank
        if case.host_memory:
            tables = 0
        free = room(case.hardware, world_size=case.world_size)
        capacity = case.hardware.rank_bytes
        held = {"table_weights": tables, "embedding_buffers": buffers, "reserve": capacity - free}
        need = sum(held.values())
        parts = {
            "data": 1e-4,
            "lookup": 1e-3,
            "communication": 2e-4,
            "dense": 1e-5 * blank.rows_per_rank + 1e-9 * total.dense_bytes,
        }
        parts["optimizer"] = 1e-4
        rows = case.variant.data.train_rows if case.purpose == "train" else case.variant.data.score_rows
        step = StepSeconds(parts=parts, total=sum(parts.values()) - parts["data"])
        hours = rows / blank.batch_size * step.total / 3600
        price = case.hardware.host.price_per_hour
        return dataclasses.replace(
            blank,
            refusal=None
            if need <= capacity
            else Refusal(where="device", need_bytes=need, capacity_bytes=capacity, sentence="rank 0 is too full"),
            held={kind: (count,) * case.world_size for kind, count in held.items()},
            host_held=(0,) * case.world_size,
            imbalance=1.0,
            tables_per_sharding_type={"table_wise": len(total.tables)},
            sent_bytes={"intra_host": 1000, "inter_host": 0},
            step=step,
            rows_per_second=blank.batch_size / step.total,
            hours=hours,
            cost=hours * blank.num_hosts * price if price else None,
            plan={"ranks": case.world_size},
        )
