"""PointMemory: what a rank holds beside what its plan says: activations, batches, the process, the reserve.

Legend: B rows of a rank's batch, S bytes of a row as stored, N rows of an epoch.

    activations  calibration.activation_factor times the most that members' operations hold at once (a trace without
                 values); in scoring of a forward pass
    id_buffers, embedding_buffers  as in the plan's report, times calibration.buffer_factors
    batches      CPU hosts: 2 windows of min(data.shuffle_window, N) rows of S bytes (the one that is read and the
                 next), and prefetch_batches + 1 batches of B S; of these, GPU hosts have the batches on the GPU
    process      memory.process_gib and calibration.memory_gib
    checkpoint_copy  where checkpoint.background: a copy of weights and states in host memory, of those that lie in host
                 memory already too
    reserve      memory.reserve_share of the rank's memory
"""

from __future__ import annotations

from configs.hardware_schema import HardwareFile
from sharding.hardware import Hardware
from sharding.ledger import HOST_KIND
from sharding.report import PlanReport
from trainer.planning.capacity_point import HELD
from trainer.planning.planning_job import PlanningJob

_GIB = 2**30
_BUFFERS = ("id_buffers", "embedding_buffers")
_COPIED = ("table_weights", "table_optimizer", "dense_weights", "dense_optimizer", "best_weights", HOST_KIND)


class PointMemory:
    """The bytes of one rank that no placement changes, and those of a plan beside them.

    Args:
        job: The ensemble and its rows.
        hardware: The kind of machine.
        machine: So many ranks of it.
    """

    def __init__(self, job: PlanningJob, *, hardware: HardwareFile, machine: Hardware) -> None:
        data, config = job.data, job.config
        rows_per_rank = job.rows_per_rank(machine.world_size)
        batches = (config.data.prefetch_batches + 1) * rows_per_rank * data.stored_bytes
        window = min(config.data.shuffle_window, data.train_rows) if job.trains else config.score.range_rows
        self._machine = machine
        self._on_cpu = machine.device == "cpu"
        self._copies_state = job.trains and config.checkpoint.background
        self._of_windows = 2 * window * data.stored_bytes
        self._beside = {
            "activations": round(job.dense_work(rows_per_rank).peak_bytes * hardware.calibration.activation_factor),
            "batches": batches + self._of_windows * self._on_cpu,
            "process": round((hardware.memory.process_gib + hardware.calibration.memory_gib) * _GIB),
        }
        self._buffer_factors = hardware.calibration.buffer_factors
        self._reserve = round(machine.rank_bytes * machine.reserve_share)

    @property
    def extra_bytes(self) -> tuple[int, ...]:
        """What the planner must leave free beside tables, dense parameters and the reserve; the first that fits.

        A checkpoint's copy doubles what a CPU's rank holds of tables, so it is first asked to fill half of the room.
        The other half may do where buffers, of which there is no copy, take most.
        """
        beside = sum(self._beside.values())
        if self._on_cpu and self._copies_state:
            return (beside + max(0, self._machine.free_bytes(taken_bytes=beside)) // 2, beside)
        return (beside,)

    def held(self, report: PlanReport) -> dict[str, tuple[int, ...]]:
        """Kind, of HELD -> bytes of each rank where it computes; kinds of which there is nothing are left out."""
        num_ranks = report.job.world_size
        held = {kind: tuple(of) for kind, of in report.bytes_per_rank.items() if kind != HOST_KIND}
        factor = self._buffer_factor(report)
        held |= {kind: tuple(round(count * factor) for count in held[kind]) for kind in _BUFFERS}
        held |= {kind: (count,) * num_ranks for kind, count in self._beside.items()}
        held["reserve"] = (self._reserve,) * num_ranks
        if self._on_cpu:
            held["checkpoint_copy"] = self._checkpoint_copy(report)
        assert set(held) <= set(HELD), sorted(set(held) - set(HELD))
        return {kind: held[kind] for kind in HELD if any(held.get(kind, ()))}

    def _buffer_factor(self, report: PlanReport) -> float:
        factors = self._buffer_factors
        if report.job.world_size == 1:
            return factors.get("alone", 1.0)
        share = report.row_wise_share
        return share * factors.get("row_wise", 1.0) + (1 - share) * factors.get("exchanged", 1.0)

    def on_host(self, report: PlanReport) -> tuple[int, ...]:
        """Bytes of each rank in a GPU host's memory; none on CPU hosts, where all of it is what ranks hold."""
        if self._on_cpu:
            return ()
        kinds = (report.bytes_per_rank[HOST_KIND], self._checkpoint_copy(report))
        beside = self._beside["batches"] + self._of_windows
        return tuple(sum(of_rank) + beside for of_rank in zip(*kinds, strict=True))

    def _checkpoint_copy(self, report: PlanReport) -> tuple[int, ...]:
        kinds = [report.bytes_per_rank[kind] for kind in _COPIED]
        return tuple(sum(of_rank) * self._copies_state for of_rank in zip(*kinds, strict=True))
