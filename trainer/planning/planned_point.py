"""plan_point(): one ensemble on so many ranks of one kind of machine: its plan, its memory and its speed, predicted.

The plan is made by the function that the trainer calls (trainer/task_plan.py), on the meta device; its bytes are the
plan report's (sharding/ledger.py); a step's time is sharding/cost/step.py's. docs/capacity.md has every formula.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from typing import Literal

import torch

from configs.errors import ConfigError
from configs.hardware_schema import HardwareFile
from configs.schema import RunConfig
from sharding.cost.rates import Rates
from sharding.cost.step import step_parts, step_seconds
from sharding.cost.work import DenseWork
from sharding.hardware import Hardware, planned_hardware
from sharding.ledger import PlannedTable
from sharding.report import PlanReport
from sharding.table_choices import TablesDoNotFitError
from trainer.data.reading.loading import slice_size
from trainer.planning.capacity_point import CapacityPoint, Refusal, StepSeconds
from trainer.planning.planning_job import PlanningJob
from trainer.planning.point_memory import PointMemory
from trainer.planning.step_work import step_work
from trainer.quantised_tables import quantised_bytes
from trainer.task_plan import TaskPlan, planned_task, replicated_plan

_GIB = 2**30


def plan_point(job: PlanningJob, *, hardware: HardwareFile, world_size: int, plan_path: str = "") -> CapacityPoint:
    """Plans and predicts one point.

    Args:
        job: The ensemble and its rows.
        hardware: The kind of machine.
        world_size: Ranks: fewer than a host has, or whole hosts.
        plan_path: A plan file to take the plan from; empty: the planner decides.

    Raises:
        ConfigError: such a world, placement or plan file cannot be had.
    """
    began = time.monotonic()
    check_threads(job.config, hardware=hardware)
    machine = planned_hardware(hardware, world_size=world_size)
    rows_per_rank = job.rows_per_rank(world_size)
    memory = PointMemory(job, hardware=hardware, machine=machine)
    built = job.built
    blank = unplanned_point(job.config, purpose=job.purpose, hardware=hardware, world_size=world_size, refusal=None)
    quantised = not job.trains and job.config.score.tables != "sharded"
    try:
        if quantised:
            report, plan = _quantised(job, hardware=hardware, world_size=world_size), None
        else:
            planned = _planned(job, machine=machine, memory=memory, path=plan_path)
            report, plan = planned.report, planned.as_json
    except TablesDoNotFitError as error:
        refusal = Refusal(
            where="placement" if error.table else "planner",
            need_bytes=error.need_bytes,
            capacity_bytes=error.capacity_bytes or machine.rank_bytes,
            sentence=" ".join(str(error).split()),
        )
        return dataclasses.replace(blank, refusal=refusal, seconds_to_plan=time.monotonic() - began)
    held, on_host = memory.held(report), memory.on_host(report)
    work = step_work(job.config, built=built, data=job.data, report=report, dense=job.dense_work(rows_per_rank))
    step = StepSeconds(parts=step_parts(work, hardware=hardware), total=step_seconds(work, hardware=hardware))
    point = dataclasses.replace(
        blank,
        refusal=_shortage(held, machine=machine) or _host_shortage(on_host, machine=machine),
        held=held,
        host_held=on_host,
        imbalance=_imbalance(report),
        tables_per_sharding_type=report.tables_per_sharding_type,
        sent_bytes={
            link: max(map(sum, zip(*(of[link] for of in report.sent_by_link.values()), strict=True)))
            for link in ("intra_host", "inter_host")
        },
        step=step,
        dense_shares=_shares(job.dense_work(rows_per_rank), hardware=hardware),
        plan=plan,
        seconds_to_plan=time.monotonic() - began,
    )
    return _with_speed(point, num_rows=job.num_rows, price_per_hour=hardware.host.price_per_hour)


def _planned(job: PlanningJob, *, machine: Hardware, memory: PointMemory, path: str) -> TaskPlan:
    """The plan that leaves most room beside it, of those that the planner finds.

    Raises:
        TablesDoNotFitError: it finds none.
    """
    *wished, least = memory.extra_bytes

    def planned(extra_bytes: int) -> TaskPlan:
        work = job.task_work(rows_per_rank=job.rows_per_rank(machine.world_size), extra_bytes=extra_bytes)
        return planned_task(job.built.task, job.built.specs, hardware=machine, work=work, path=path)

    for extra_bytes in wished:
        with contextlib.suppress(TablesDoNotFitError):
            return planned(extra_bytes)
    return planned(least)


def check_threads(config: RunConfig, *, hardware: HardwareFile) -> None:
    """Refuses a run of other threads a rank than a CPU machine's rates are of.

    Raises:
        ConfigError: names the key and both numbers.
    """
    threads, rated = config.run.threads_per_rank, hardware.host.threads_per_rank
    if hardware.device == "cpu" and threads != rated:
        raise ConfigError(
            f"run.threads_per_rank: the run has {threads}, and the rates of {hardware.name} are of {rated}; add"
            f" --run.threads_per_rank={rated}, or name a hardware file of {threads}"
        )


def _quantised(job: PlanningJob, *, hardware: HardwareFile, world_size: int) -> PlanReport:
    """Every rank holds all tables, rows quantised."""
    dtype = job.config.score.tables
    assert dtype != "sharded"
    specs, device = job.built.specs, torch.device(hardware.device)
    return replicated_plan(
        job.built.task,
        {
            spec.name: PlannedTable(
                rows=spec.num_rows,
                dim=spec.dim,
                optimizer=spec.optimizer,
                mean_bag_length=job.data.traffic[spec.feature].mean_ids,
                row_bytes=quantised_bytes([spec], dtype=dtype, device=device) // spec.num_rows,
            )
            for spec in specs
        },
        hardware=planned_hardware(hardware, world_size=world_size),
        work=job.task_work(rows_per_rank=job.rows_per_rank(world_size), extra_bytes=0),
    )


def unplanned_point(
    config: RunConfig,
    *,
    purpose: Literal["train", "score"],
    hardware: HardwareFile,
    world_size: int,
    refusal: Refusal | None,
) -> CapacityPoint:
    """A point with nothing in it that only a plan tells."""
    trains = purpose == "train"
    rows = slice_size(batch_size=config.train.batch_size, world_size=world_size) if trains else config.score.batch_size
    return CapacityPoint(
        hardware=hardware.name,
        device=hardware.device,
        purpose=purpose,
        world_size=world_size,
        num_hosts=-(-world_size // hardware.host.ranks),
        batch_size=config.train.batch_size if trains else rows * world_size,
        rows_per_rank=rows,
        num_members=len(config.expanded_members()),
        refusal=refusal,
        held={},
        host_held=(),
        capacity_bytes=planned_hardware(hardware, world_size=world_size).rank_bytes,
        imbalance=0.0,
        tables_per_sharding_type={},
        sent_bytes={},
        step=None,
        dense_shares={},
        rows_per_second=0.0,
        hours=0.0,
        cost=None,
        plan=None,
        seconds_to_plan=0.0,
    )


def _with_speed(point: CapacityPoint, *, num_rows: int, price_per_hour: float) -> CapacityPoint:
    assert point.step is not None
    rows_per_second = point.batch_size / point.step.total
    hours = math.ceil(num_rows / point.batch_size) * point.step.total / 3_600
    cost = price_per_hour * point.num_hosts * hours if price_per_hour else None
    return dataclasses.replace(point, rows_per_second=rows_per_second, hours=hours, cost=cost)


def _shortage(held: dict[str, tuple[int, ...]], *, machine: Hardware) -> Refusal | None:
    """What the fullest rank lacks once all is counted, the planner's own sum being of tables and their buffers."""
    of_ranks = [sum(kinds) for kinds in zip(*held.values(), strict=True)]
    need, capacity = max(of_ranks), machine.rank_bytes
    if need <= capacity:
        return None
    return Refusal(
        where="device" if machine.device == "cuda" else "host",
        need_bytes=need,
        capacity_bytes=capacity,
        sentence=f"rank {of_ranks.index(need)} would hold {need / _GIB:,.1f} GiB, the reserve included, of"
        f" {capacity / _GIB:,.1f} GiB",
    )


def _shares(dense: DenseWork, *, hardware: HardwareFile) -> dict[str, float]:
    seconds = {name: Rates(hardware).dense(own) for name, own in dense.forward_of.items()}
    total = sum(seconds.values())
    return {name: own / total for name, own in sorted(seconds.items(), key=lambda one: -one[1])} if total else {}


def _host_shortage(on_host: tuple[int, ...], *, machine: Hardware) -> Refusal | None:
    """What a GPU host lacks for what its ranks keep in its memory."""
    need, capacity = max(on_host, default=0), int(machine.ddr_bytes * (1 - machine.reserve_share))
    if need <= capacity:
        return None
    return Refusal(
        where="host",
        need_bytes=need,
        capacity_bytes=capacity,
        sentence=f"rank {on_host.index(need)} would keep {need / _GIB:,.1f} GiB in its host's memory, where its share"
        f" less the reserve is {capacity / _GIB:,.1f} GiB; checkpoint.background = false spares the copy of the state,"
        " a smaller data.shuffle_window its rows",
    )


def _imbalance(report: PlanReport) -> float:
    of_ranks = [
        sum(kinds)
        for kinds in zip(report.bytes_per_rank["table_weights"], report.bytes_per_rank["table_optimizer"], strict=True)
    ]
    return max(of_ranks) * len(of_ranks) / sum(of_ranks) if any(of_ranks) else 1.0
