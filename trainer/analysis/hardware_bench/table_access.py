"""Table rows read and updated by FBGEMM's kernels, built and fed as by TorchRec, and AccessRates fitted to that."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor

from configs.hardware_schema import AccessRate, LookupRates
from trainer.analysis.hardware_bench.device_clock import DeviceClock
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.points import Fit, Point, fit_seconds, rounded
from trainer.analysis.hardware_bench.rank_processes import RankHere

_RULES = {
    "sgd": EmbOptimType.EXACT_SGD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adam": EmbOptimType.ADAM,
}
_STATE_VALUES = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 0, "adam": 2}  # of one value of the table
_TABLES = 26
_DIMS, _QUICK_DIMS = (8, 16, 32, 64, 128), (8, 16)
_VALUE_BYTES = 4
# Far tables are this much larger than the cache, as far as a rank's memory allows.
_TIMES_CACHE, _LEAST_FAR_BYTES, _MOST_SHARE = 32, 512 << 20, 1 / 8
_NEAR_SHARE = 0.5  # of the cache; ids, gradients and results want some of it
FORWARD = "forward"


@dataclass(frozen=True, kw_only=True)
class IdShape:
    """How the ids of a batch come."""

    batch_size: int
    bag_size: int
    zipf: float  # s in frequency ~ rank^-s; 0: uniform


@dataclass(frozen=True, kw_only=True)
class TablesOrder:
    """One kernel that is measured."""

    dim: int
    rule: str
    table_bytes: float  # weights and state of all its tables
    shapes: tuple[IdShape, ...]

    @property
    def rows(self) -> int:
        """Of each table."""
        return max(2, int(self.table_bytes / (_TABLES * self.dim * _VALUE_BYTES * (1 + _STATE_VALUES[self.rule]))))


def tables_orders(*, cache_bytes: float, rank_bytes: float, device: str, quick: bool) -> dict[str, list[TablesOrder]]:
    """What is to be measured: `far` tables, and `near` ones that fit into the cache, where its size is known."""
    far = max(_TIMES_CACHE * cache_bytes, _LEAST_FAR_BYTES)
    sizes = {"far": min(far, rank_bytes * _MOST_SHARE)} | ({"near": cache_bytes * _NEAR_SHARE} if cache_bytes else {})
    if quick:
        sizes = {where: min(size, 8 << 20) for where, size in sizes.items()}
    rules = [rule for rule in _RULES if rule != "adam" or device == "cuda"]
    return {
        where: [
            TablesOrder(dim=dim, rule=rule, table_bytes=size, shapes=_shapes(device=device, quick=quick))
            for dim in (_QUICK_DIMS if quick else _DIMS)
            for rule in rules
        ]
        for where, size in sizes.items()
    }


def _shapes(*, device: str, quick: bool) -> tuple[IdShape, ...]:
    if quick:
        batches = [(64, 1), (64, 10), (256, 1)]
    elif device == "cuda":
        batches = [(1024, 1), (4096, 1), (16384, 1), (65536, 1), (1024, 10), (4096, 10), (16384, 10)]
    else:
        batches = [(512, 1), (2048, 1), (8192, 1), (1024, 10)]
    return tuple(
        IdShape(batch_size=batch_size, bag_size=bag_size, zipf=zipf)
        for batch_size, bag_size in batches
        for zipf in (0.0, 1.1)
    )


def measure_tables(here: RankHere, order: TablesOrder, effort: Effort) -> list[Point]:
    """Forward, and backward with its update, for all shapes of ids; every repeat has ids that were not seen before."""
    here.grow_heap()
    kernel = _kernel(order, device=here.device)
    clock, points = DeviceClock(here.device), []
    torch.manual_seed(here.rank)
    for shape in order.shapes:
        offsets = torch.arange(0, _TABLES * shape.batch_size * shape.bag_size + 1, shape.bag_size, device=here.device)
        gradient = torch.full((shape.batch_size, _TABLES * order.dim), 1e-3, device=here.device)
        times: dict[str, list[float]] = {FORWARD: [], order.rule: []}
        here.meet()
        for repeat in range(effort.repeats + 1):
            ids = _ids(shape, rows=order.rows, device=here.device)
            began = clock.stamp()
            pooled = kernel(indices=ids.long(), offsets=offsets)  # TorchRec widens ids here, too
            looked_up = clock.stamp()
            pooled.backward(gradient)
            updated = clock.stamp()
            if repeat:
                times[FORWARD].append(clock.seconds(began, looked_up))
                times[order.rule].append(clock.seconds(looked_up, updated))
        size = {
            "ids": float(len(ids)),
            "distinct": float(_num_distinct(ids, rows=order.rows)),
            "row_bytes": float(order.dim * _VALUE_BYTES),
            "bags": float(_TABLES * shape.batch_size),
        }
        points += [Point(what=what, size=size, seconds=(statistics.median(of),)) for what, of in times.items()]
    return points


def _kernel(order: TablesOrder, *, device: torch.device) -> SplitTableBatchedEmbeddingBagsCodegen:
    """As TorchRec's BatchedFusedEmbeddingBag builds it, every page of weights and state written once."""
    on_cpu = device.type == "cpu"
    place = (EmbeddingLocation.HOST, ComputeDevice.CPU) if on_cpu else (EmbeddingLocation.DEVICE, ComputeDevice.CUDA)
    kernel = SplitTableBatchedEmbeddingBagsCodegen(
        embedding_specs=[(order.rows, order.dim, *place)] * _TABLES,
        optimizer=_RULES[order.rule],
        learning_rate=0.01,
        pooling_mode=PoolingMode.SUM,
        device=device,
    )
    for weights in kernel.split_embedding_weights():
        weights.uniform_(-0.01, 0.01)
    for states in kernel.split_optimizer_states():
        for state in states:
            state.fill_(0.1)
    return kernel


def _ids(shape: IdShape, *, rows: int, device: torch.device) -> Tensor:
    """Table by table, 32 bits each as our batches have them; skewed ones lie at the tables' beginnings, as prepared."""
    count = _TABLES * shape.batch_size * shape.bag_size
    if not shape.zipf:
        return torch.randint(rows, (count,), dtype=torch.int32, device=device)
    # The inverse of the distribution function of rank^-s on [1, rows + 1).
    power = 1 - shape.zipf
    drawn = torch.rand(count, dtype=torch.float64, device=device)
    ranks = ((math.pow(rows + 1, power) - 1) * drawn + 1).pow_(1 / power)
    return ranks.sub_(1).to(torch.int32).clamp_(max=rows - 1)


def _num_distinct(ids: Tensor, *, rows: int) -> int:
    """Over all tables."""
    seen = torch.zeros(_TABLES, rows, dtype=torch.bool, device=ids.device)
    seen.scatter_(1, ids.view(_TABLES, -1).long(), True)
    return int(seen.sum())


def fit_lookup(points: Sequence[Point], *, where: str) -> tuple[LookupRates, list[Fit]]:
    """Rates of the forward pass and of each rule that was measured."""
    rates, fits = {}, []
    for what in dict.fromkeys(point.what for point in points):
        rates[what], fit = _fit_access(f"{what}, {where}", [point for point in points if point.what == what])
        fits.append(fit)
    forward = rates.pop(FORWARD)
    return LookupRates(forward=forward, backward=rates), fits


def _fit_access(name: str, points: Sequence[Point]) -> tuple[AccessRate, Fit]:
    terms = (("ids", False), ("ids", True), ("distinct", False), ("distinct", True), ("bags", True))
    columns = np.array(
        [
            [point.size[count] * (point.size["row_bytes"] if by_byte else 1.0) for count, by_byte in terms]
            for point in points
        ]
    )
    (of_id, of_id_byte, of_row, of_row_byte, of_bag_byte), fit = fit_seconds(name, points, columns)

    def gb_per_s(seconds: float) -> float:
        return rounded(1e-9 / seconds) if seconds else 0.0

    rate = AccessRate(
        id_ns=rounded(of_id * 1e9),
        id_gb_per_s=gb_per_s(of_id_byte),
        row_ns=rounded(of_row * 1e9),
        row_gb_per_s=gb_per_s(of_row_byte),
        bag_gb_per_s=gb_per_s(of_bag_byte),
    )
    return rate, fit
