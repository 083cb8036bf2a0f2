"""step_work(): what a step asks of the ranks, from a plan's report and the rows in numbers.

Of a table's ids, the share F(x) is in the first x of its rows: F(x) = x^a, F(1/2) being as the rows have it. So of a
table that is split by rows, rank k of n looks up F((k + 1) / n) - F(k / n) of the ids. Of the distinct rows in a step's
ids (trainer/planning/distinct_ids.py) a shard has that share or its share of the rows, in the mean of both.
"""

from __future__ import annotations

import math

from configs.schema import RunConfig
from modules.tables import FIRST_ORDER_SUFFIX, TableSpec
from sharding.cost.step import Sent, StepWork, TableLoad
from sharding.cost.work import DenseWork, counted_passes
from sharding.ledger import STATE_VALUES, ShardLoad
from sharding.report import PlanReport
from trainer.built_task import BuiltTask
from trainer.optimizers import member_rules
from trainer.planning.data_facts import DataFacts
from trainer.planning.distinct_ids import expected_distinct
from trainer.planning.update_work import clipping, member_updates, table_update

_VALUE_BYTES = 4
_SCORED_BYTES = {"sharded": _VALUE_BYTES, "fp16": 2, "int8": 1}
_REPLICA = "data_parallel"
_LEAST_HALF = 0.01  # tables of a few rows may have all of their ids in one half


def step_work(
    config: RunConfig, *, built: BuiltTask, data: DataFacts, report: PlanReport, dense: DenseWork
) -> StepWork:
    """What a step of a job asks.

    Args:
        config: The run.
        built: Its ensemble.
        data: Its rows.
        report: Of the plan.
        dense: What members compute for a rank's batch.
    """
    trains = report.job.purpose == "train"
    frozen = built.task.ensemble.frozen_groups
    value_bytes = _VALUE_BYTES if trains else _SCORED_BYTES[config.score.tables]
    loads = [
        _load(one, spec=spec, data=data, is_trained=trains and spec.group not in frozen, value_bytes=value_bytes)
        for one, spec in _looked_up(built, report)
    ]
    optimizer = _updates(config, built=built, loads=loads, report=report) if trains else DenseWork()
    stored_ids = sum(traffic.mean_ids for traffic in data.traffic.values())
    return StepWork(
        world_size=report.job.world_size,
        rows_per_rank=report.job.rows_per_rank,
        loads=loads,
        sent=_sent(report, num_members=len(built.task.ensemble.member_names)),
        dense=dense,
        optimizer=optimizer,
        stored_bytes=data.stored_bytes,
        stored_values=len(data.features.dense_names) + stored_ids + 1,
    )


def _looked_up(built: BuiltTask, report: PlanReport) -> list[tuple[ShardLoad, TableSpec]]:
    specs = {spec.name: spec for spec in built.specs}
    return [(one, specs[one.table]) for one in report.lookups]


def _load(one: ShardLoad, *, spec: TableSpec, data: DataFacts, is_trained: bool, value_bytes: int) -> TableLoad:
    traffic = data.traffic[spec.feature]
    ids_of_table = one.ids * spec.num_rows / one.rows
    of_table = expected_distinct(table_rows=spec.num_rows, num_ids=round(ids_of_table), zipf=traffic.zipf)
    share = _share_of_ids(one, num_rows=spec.num_rows, first_half=traffic.first_half)
    of_rows = one.rows / spec.num_rows
    values = one.rows if spec.optimizer == "rowwise_adagrad" else one.rows * one.columns * STATE_VALUES[spec.optimizer]
    return TableLoad(
        rank=one.rank,
        rows=one.rows,
        columns=one.columns,
        ids=ids_of_table * share,
        distinct=min(ids_of_table * share, one.rows, of_table * (share + of_rows) / 2),
        bags=one.bags,
        rule=one.rule if is_trained else None,
        value_bytes=value_bytes,
        is_replica=one.sharding_type == _REPLICA,
        state_bytes=_VALUE_BYTES * values if is_trained else 0,
        host_share=_host_share(one, spec=spec, zipf=traffic.zipf),
    )


def _share_of_ids(one: ShardLoad, *, num_rows: int, first_half: float) -> float:
    """Of the ids that the table's shards look up, those of this one."""
    skew = math.log(min(max(first_half, _LEAST_HALF), 1 - _LEAST_HALF)) / math.log(0.5)
    return float(((one.first_row + one.rows) / num_rows) ** skew - (one.first_row / num_rows) ** skew)


def _updates(config: RunConfig, *, built: BuiltTask, loads: list[TableLoad], report: PlanReport) -> DenseWork:
    """What a rank's optimizers do after the backward pass: members' parameters, and every replicated table."""
    rules = member_rules(config, groups=built.facts.groups)
    device, world_size = report.job.device, report.job.world_size
    works = [member_updates(built.task, rules, device=device, world_size=world_size, l2=config.dense.l2)]
    clipped: dict[str, list[int]] = {}
    for load, (_, spec) in zip(loads, _looked_up(built, report), strict=True):
        if load.is_replica and load.rank == 0 and load.rule is not None:
            touched = min(spec.num_rows, load.distinct * world_size)
            if spec.clip_norm is not None:
                clipped.setdefault(spec.group.removesuffix(FIRST_ORDER_SUFFIX), []).append(spec.num_rows * spec.dim)
            works.append(
                table_update(
                    load.rule, num_rows=spec.num_rows, dim=spec.dim, touched_rows=touched, device=device, l2=spec.l2
                )
            )
    works += [clipping(sizes) for sizes in clipped.values()]
    return DenseWork(passes=counted_passes(one for work in works for one in work.passes))


def _host_share(one: ShardLoad, *, spec: TableSpec, zipf: float) -> float:
    """Of the distinct rows, those that come from host memory: all under uvm, those beside the cache under uvm_caching.

    The cache is taken to hold the most frequent rows, of which each is asked for once a step.
    """
    if one.kernel == "fused_uvm":
        return 1.0
    if one.kernel != "fused_uvm_caching":
        return 0.0
    ids = round(one.ids * spec.num_rows / one.rows)
    asked = expected_distinct(table_rows=spec.num_rows, num_ids=ids, zipf=zipf)
    return max(0.0, 1 - CACHED_SHARE * spec.num_rows / asked) if asked else 0.0


CACHED_SHARE = 0.2  # of the rows, fbgemm's default


def _sent(report: PlanReport, *, num_members: int) -> dict[str, Sent]:
    """Kind -> what the busiest rank sends; a placement's tables go together, each member's gradients alone."""
    placements = sum(kind != _REPLICA for kind in report.tables_per_sharding_type)
    exchanges = {"dense_all_reduce": num_members, "ids_all_to_all": placements}
    found = {}
    for kind, by_link in report.sent_by_link.items():
        busiest = max(
            range(len(report.held)), key=lambda rank: by_link["intra_host"][rank] + by_link["inter_host"][rank]
        )
        found[kind] = Sent(
            intra_host=by_link["intra_host"][busiest],
            inter_host=by_link["inter_host"][busiest],
            exchanges=exchanges.get(kind, 1),
        )
    return found
