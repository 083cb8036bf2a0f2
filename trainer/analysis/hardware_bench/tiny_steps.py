"""What a step takes whatever its size: real training runs on a few rows, and tensor operations on a few numbers."""

from __future__ import annotations

import contextlib
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from configs.hardware_schema import Overheads
from configs.loader import read_run
from modules import members
from trainer import storage
from trainer.analysis.hardware_bench.device_clock import DeviceClock
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.points import Fit, Point, fit_seconds, rounded
from trainer.analysis.hardware_bench.prepared_rows import FEW
from trainer.analysis.hardware_bench.rank_processes import RankHere
from trainer.assembly import assemble_training
from trainer.data.criteo import SPARSE_NAMES
from trainer.loop import train
from trainer.reporting import METRICS_NAME, Reporter

_TABLES = len(SPARSE_NAMES)
_BATCH_ROWS = 8
_DIM = 8
_LAP_STEPS, _LAPS = 20, 6  # the first lap is not counted
_QUICK_LAP_STEPS, _QUICK_LAPS = 3, 2
_LAYERS = 8
STEP, OPERATION = "step", "operation"


@dataclass(frozen=True, kw_only=True)
class StepLayout:
    """A tiny run."""

    members: int
    tables: Literal["shared", "own"]
    placement: Literal["table_wise", "data_parallel", "half"]  # half: every second table is data-parallel

    @property
    def size(self) -> dict[str, float]:
        """What it has of each thing that takes time."""
        tables = _TABLES * (self.members if self.tables == "own" else 1)
        share = {"table_wise": 1.0, "data_parallel": 0.0, "half": 0.5}[self.placement]
        return {"sharded": tables * share, "replicas": tables * (1 - share), "members": float(self.members)}

    def text(self, *, root: str, lap_steps: int, laps: int) -> str:
        """The run's configuration."""
        placement = "table_wise" if self.placement == "half" else self.placement
        lines = [
            "[data]",
            f"root = {json.dumps(root)}",
            f'train = ["{FEW}"]',
            "[train]",
            f"batch_size = {_BATCH_ROWS}",
            f"until = {{ steps = {lap_steps * laps} }}",
            f"log_every = {{ steps = {lap_steps} }}",
            f"[tables.{self.tables}]",
            f"dim = {_DIM}",
            f'placement = "{placement}"',
        ]
        if self.placement == "half":
            lines += [f'features.{name}.placement = "data_parallel"' for name in SPARSE_NAMES[1::2]]
        for number in range(1, self.members + 1):
            lines += [f"[members.m{number}]", f'tables = "{self.tables}"', 'arch = { kind = "mlp", hidden = [16] }']
        return "\n".join(lines) + "\n"


LAYOUTS = (
    StepLayout(members=1, tables="shared", placement="table_wise"),
    StepLayout(members=1, tables="shared", placement="data_parallel"),
    StepLayout(members=4, tables="shared", placement="table_wise"),
    StepLayout(members=1, tables="shared", placement="half"),
    StepLayout(members=3, tables="own", placement="table_wise"),
    StepLayout(members=3, tables="own", placement="data_parallel"),
    StepLayout(members=6, tables="own", placement="table_wise"),
)
QUICK_LAYOUTS = (*LAYOUTS[:3], LAYOUTS[4])


def measure_steps(here: RankHere, layout: StepLayout, root: str, folder: str, effort: Effort) -> list[Point]:
    """A run of the training loop, in a world of this rank alone, so that no collective's wait is part of it.

    Args:
        here: This rank.
        layout: What is trained.
        root: The prepared folder.
        folder: Where runs may write.
        effort: How much.
    """
    here.grow_heap()
    lap_steps, laps = (_QUICK_LAP_STEPS, _QUICK_LAPS) if effort.quick else (_LAP_STEPS, _LAPS)
    config = read_run(
        layout.text(root=root, lap_steps=lap_steps, laps=laps),
        source="a tiny run",
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )
    run_folder = storage.join(folder, f"rank_{here.rank}")
    storage.make_folder(run_folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), here.world(port=0) as runtime:
            training = assemble_training(config, folder=run_folder, runtime=runtime).training
            reporter = Reporter(folder=run_folder, resumed_step=0, runtime=runtime)
            here.meet()
            train(training, config=config, reporter=reporter, runtime=runtime)
            reporter.close()
        lines = storage.read_text(storage.join(run_folder, METRICS_NAME)).splitlines()
    finally:
        storage.remove_tree(run_folder)
    laps_found = [_BATCH_ROWS / json.loads(line)["train/rows_per_second"] for line in lines]
    return [Point(what=STEP, size=layout.size, seconds=(statistics.median(laps_found[1:]),))]


def measure_operations(here: RankHere, effort: Effort) -> list[Point]:
    """Forward and backward pass of a small network on a few rows, and the operations that it is made of."""
    here.grow_heap()
    layers = [layer for _ in range(_LAYERS) for layer in (nn.Linear(16, 16), nn.ReLU())]
    network = nn.Sequential(*layers).to(here.device)
    inputs = torch.rand(_BATCH_ROWS, 16, device=here.device)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(inputs).sum().backward()

    with _CountedOperations() as counted:
        step()
    here.meet()
    seconds = DeviceClock(here.device).median(step, seconds=10 * effort.seconds, repeats=effort.repeats)
    return [Point(what=OPERATION, size={"operations": float(counted.count)}, seconds=(seconds,))]


class _CountedOperations(TorchDispatchMode):
    """Counts what is dispatched; views move nothing and are left out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def fit_overheads(points: Sequence[Point]) -> tuple[Overheads, list[Fit], list[str]]:
    """Step = step_us + sharded tables * table_us + replicas * replica_us + members * what a tiny member takes."""
    steps = [point for point in points if point.what == STEP]
    keys = ("sharded", "replicas", "members")
    columns = np.array([[1.0, *(point.size[key] for key in keys)] for point in steps])
    found, fit = fit_seconds("tiny steps", steps, columns)
    step_us, table_us, replica_us, member_us = (rounded(seconds * 1e6) for seconds in found)
    (operations,) = [point for point in points if point.what == OPERATION]
    op_us = rounded(operations.mean_seconds / operations.size["operations"] * 1e6)
    overheads = Overheads(step_us=step_us, table_us=table_us, replica_us=replica_us, op_us=op_us)
    return overheads, [fit], [f"a member of one hidden layer takes {member_us:,.0f} us of a tiny step"]
