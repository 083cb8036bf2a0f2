"""Remedies: what to change where nothing fits, in the configuration's key names, each tried on the byte sum."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from configs.ensemble_schema import Member
from configs.errors import ConfigError
from configs.schema import RunConfig
from configs.score_schema import ScoreTables
from configs.training_schema import EarlyStop
from trainer.planning.byte_sum import ByteSum, Memory, Purpose, room
from trainer.planning.page.words import size
from trainer.planning.plans import OutOfBudgetError, Plans
from trainer.planning.search import world_sizes
from trainer.planning.study import Case, StudiedPoint

_LEAST_DIM = 4
_MOST_HALVINGS = 4  # of the batch
_LEAST_SHARE = 0.01  # of what is missing: changes that save less are no remedies
_VALUE_BYTES = 4  # of an id, a bag's length and an embedding's value


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """One change, and what it does on the machines that were asked for."""

    change: str  # as it is written into the configuration, or on the command line
    saves_bytes: int  # on the fullest rank, of what the bytes alone come to in the memory that is short
    suffices: bool  # alone
    proof: str  # what says so: the byte sum, or a plan

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self)


Change = tuple[str, Callable[[RunConfig], RunConfig]]


def remedies(one: StudiedPoint, *, most_ranks: int, plans: Plans) -> list[Remedy]:
    """What would help, the largest saving first.

    Every change is made to the configuration and its bytes are added up anew. Changes that the sum lets through are
    planned, as long as plans are left.

    Args:
        one: A point that does not fit, on as many ranks as there may be.
        most_ranks: Where looking for ranks ends.
        plans: Plans what has changed.
    """
    case, memory, least = one.case, short_memory(one), _least_saving(one)
    before = _sum_of(case, plans=plans)
    found = []
    for text, apply in _changes(case.variant.config, purpose=case.purpose, device=case.hardware.device):
        try:
            config = apply(case.variant.config)
            changed = _with_config(case, config)
            after = _sum_of(changed, plans=plans)
        except (ConfigError, ValueError):  # not to be had in this configuration
            continue
        saves = _least(before, case, memory) - _least(after, case, memory)
        if saves > least:
            found.append(_tried(text, saves, changed, plans=plans))
    found += _fewer_copies(one, plans=plans)
    found += _more_ranks(one, most_ranks=most_ranks, plans=plans)
    found += _smaller_batch(one, plans=plans)
    return sorted(found, key=lambda remedy: (-remedy.saves_bytes, not remedy.suffices, remedy.change))


def nearest(points: list[StudiedPoint]) -> StudiedPoint:
    """The refused point with the most memory: what can be had of what was asked for.

    Where every rank holds all tables, it is a rank's memory that counts.
    """

    def memory(one: StudiedPoint) -> tuple[int, int]:
        case = one.case
        of_rank = room(case.hardware, world_size=case.world_size)
        is_replicated = case.purpose == "score" and case.variant.config.score.tables != "sharded"
        return (of_rank, -case.world_size) if is_replicated else (of_rank * case.world_size, 0)

    return max(points, key=memory)


def short_memory(one: StudiedPoint) -> Memory:
    """Which memory a point that does not fit lacks: a GPU host's, or that where ranks compute."""
    refusal = one.point.refusal
    of_host = one.case.hardware.device == "cuda" and refusal is not None and refusal.where == "host"
    return "host" if of_host else "device"


def blame(one: StudiedPoint, *, plans: Plans) -> str | None:
    """The words for a batch whose ids and embeddings alone take more than a rank has; None: they do not.

    Counted are, of a rank's own rows, an id or a bag's length in 4 bytes each and the embeddings, in training with
    their gradients; or what a plan says that buffers take.
    """
    case = one.case
    free = room(case.hardware, world_size=case.world_size)
    tables = _sum_of(case, plans=plans).tables
    traffic = case.variant.data.traffic
    ids = {table.feature: traffic[table.feature].mean_ids if table.feature in traffic else 1.0 for table in tables}
    values = sum(ids[table.feature] + 1 + table.columns * (1 + (case.purpose == "train")) for table in tables)
    kinds = [one.point.held.get(kind, (0,)) for kind in ("id_buffers", "embedding_buffers")]
    need = max(_VALUE_BYTES * values * one.point.rows_per_rank, sum(max(of_ranks) for of_ranks in kinds))
    if need <= free:
        return None
    most = max(ids, key=lambda feature: ids[feature])
    key = "train" if case.purpose == "train" else "score"
    return (
        f"ids and embeddings of a batch alone take at least {size(need)} on a rank of {case.world_size}, and there are"
        f" {size(max(free, 0))}: see whether feature {most} has mean_ids = {ids[most]:g} ids a row, the most of all, or"
        f" take a smaller {key}.batch_size"
    )


def _with_config(case: Case, config: RunConfig) -> Case:
    return dataclasses.replace(case, variant=dataclasses.replace(case.variant, config=config))


def _sum_of(case: Case, *, plans: Plans) -> ByteSum:
    return plans.sum_of(case.variant, purpose=case.purpose, hardware=case.hardware)


def _least(total: ByteSum, case: Case, memory: Memory) -> int:
    return total.least_per_rank(case.hardware, world_size=case.world_size, memory=memory)


def _least_saving(one: StudiedPoint) -> float:
    """What a change must save to be one; what is missing is known where somebody has added it up."""
    refusal = one.point.refusal
    return max(0.0, _LEAST_SHARE * (refusal.need_bytes - refusal.capacity_bytes)) if refusal is not None else 0.0


def _tried(text: str, saves: int, changed: Case, *, plans: Plans) -> Remedy:
    fits = _sum_of(changed, plans=plans).shortfall(changed.hardware, world_size=changed.world_size) is None
    proof = "the bytes alone"
    if fits:
        try:
            fits, proof = plans.try_point(changed).fits, "a plan"
        except OutOfBudgetError:
            proof = "the bytes alone; no plan was left to see"
    return Remedy(change=text, saves_bytes=saves, suffices=fits, proof=proof)


def _ruled_out(one: StudiedPoint, *, plans: Plans) -> bool:
    case = one.case
    return _sum_of(case, plans=plans).shortfall(case.hardware, world_size=case.world_size) is not None


def _changes(config: RunConfig, *, purpose: Purpose, device: str) -> Iterator[Change]:
    own = {name: member for name, member in config.members.items() if member.tables == "own"}
    for name, member in own.items():
        copies = f", for its {member.copies} copies" if member.copies > 1 else ""
        yield f'members.{name}.tables = "shared"{copies}', partial(_sharing, names=[name])
    if len(own) > 1:
        yield 'tables = "shared" for every member', partial(_sharing, names=list(own))
    for name, member in own.items():
        if member.dim is not None and member.dim > _LEAST_DIM:
            dim = _half(member.dim)
            yield f"members.{name}.dim = {dim}", partial(_member, name=name, dim=dim)
    yield from _table_changes(config, purpose=purpose, device=device)
    if purpose == "train" and config.checkpoint.background:
        waiting = dataclasses.replace(config.checkpoint, background=False)
        yield "checkpoint.background = false", partial(dataclasses.replace, checkpoint=waiting)
    if purpose == "train" and config.train.early_stop.evaluations:
        without = dataclasses.replace(config.train, early_stop=EarlyStop())
        yield "train.early_stop removed", partial(dataclasses.replace, train=without)
    if purpose == "score":
        kinds: tuple[ScoreTables, ...] = ("fp16", "int8", "sharded")
        for tables in kinds:
            if tables != config.score.tables:
                score = dataclasses.replace(config.score, tables=tables)
                yield f'score.tables = "{tables}"', partial(dataclasses.replace, score=score)


def _table_changes(config: RunConfig, *, purpose: Purpose, device: str) -> Iterator[Change]:
    """Of each group, and of all at once where several could have it: one alone may save nothing."""
    names = dict.fromkeys(member.tables for member in config.members.values())
    groups = {name: config.table_group(name) for name in names}
    of_key: dict[str, dict[str, Any]] = {
        "optimizer": {
            name: "rowwise_adagrad"
            for name, group in groups.items()
            if purpose == "train" and group.optimizer not in ("rowwise_adagrad", "sgd")
        },
        "dim": {name: _half(group.dim) for name, group in groups.items() if group.dim > _LEAST_DIM},
        "kernel": {
            name: "uvm_caching"
            for name, group in groups.items()
            if device == "cuda" and group.kernel not in ("uvm", "uvm_caching")
        },
        "placement": {
            name: "row_wise" for name, group in groups.items() if group.placement not in ("auto", "row_wise")
        },
    }
    for key, values in of_key.items():
        for chosen in [{name: value} for name, value in values.items()] + ([values] if len(values) > 1 else []):
            text = ", ".join(f"tables.{name}.{key} = {json.dumps(value)}" for name, value in chosen.items())
            yield text, partial(_groups, keys={name: {key: value} for name, value in chosen.items()})
    for name, group in groups.items():
        for feature, override in group.features.items():
            if override.placement not in (None, "auto", "row_wise"):
                features = {**group.features, feature: dataclasses.replace(override, placement="row_wise")}
                text = f'tables.{name}.features.{feature}.placement = "row_wise"'
                yield text, partial(_groups, keys={name: {"features": features}})


def _half(dim: int) -> int:
    """Half, as a multiple of four columns."""
    return max(_LEAST_DIM, dim // 2 // 4 * 4)


def _groups(run: RunConfig, *, keys: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """With these keys of these table groups."""
    changed = {name: dataclasses.replace(run.table_group(name), **of) for name, of in keys.items()}
    return dataclasses.replace(run, tables={**run.tables, **changed})


def _member(run: RunConfig, *, name: str, **keys: Any) -> RunConfig:
    return dataclasses.replace(run, members={**run.members, name: dataclasses.replace(run.members[name], **keys)})


def _sharing(run: RunConfig, *, names: list[str]) -> RunConfig:
    """Those members on the group `shared`, which is made as own tables are where there is none."""
    members: Mapping[str, Member] = {
        name: dataclasses.replace(member, tables="shared", dim=None, l2=None, tables_seed=None)
        if name in names
        else member
        for name, member in run.members.items()
    }
    tables = {"shared": run.table_group("own")} | run.tables
    return dataclasses.replace(run, members=dict(members), tables=tables)


def _fewer_copies(one: StudiedPoint, *, plans: Plans) -> list[Remedy]:
    """The most copies of a member with own tables that the bytes leave, for each such member; else half of them."""
    case, memory = one.case, short_memory(one)
    before = _sum_of(case, plans=plans)
    found = []
    for name, member in case.variant.config.members.items():
        if member.tables != "own" or member.copies == 1:
            continue

        def with_copies(copies: int, name: str = name) -> Case:
            return _with_config(case, _member(case.variant.config, name=name, copies=copies))

        try:
            low, high = 0, member.copies  # low: fits
            while high - low > 1:
                middle = (low + high) // 2
                short = _sum_of(with_copies(middle), plans=plans).shortfall(case.hardware, world_size=case.world_size)
                low, high = (middle, high) if short is None else (low, middle)
            copies = low or max(1, member.copies // 2)
            changed = with_copies(copies)
            saves = _least(before, case, memory) - _least(_sum_of(changed, plans=plans), case, memory)
        except (ConfigError, ValueError):
            continue
        if saves <= _least_saving(one):
            continue
        found.append(_tried(f"members.{name}.copies = {copies}", saves, changed, plans=plans))
    return found


def _more_ranks(one: StudiedPoint, *, most_ranks: int, plans: Plans) -> list[Remedy]:
    """The smallest larger world that the bytes let through."""
    case, memory = one.case, short_memory(one)
    total = _sum_of(case, plans=plans)
    if total.is_replicated:
        return []
    for ranks in world_sizes(case.hardware, least=case.world_size + 1, most=most_ranks):
        if total.shortfall(case.hardware, world_size=ranks) is None:
            changed = dataclasses.replace(_with_config(case, case.variant.config), world_size=ranks)
            saves = _least(total, case, memory) - _least(total, changed, memory)
            remedy = _tried(f"--ranks {ranks}", saves, changed, plans=plans)
            return [remedy] if remedy.suffices or saves > _least_saving(one) else []
    return []


def _smaller_batch(one: StudiedPoint, *, plans: Plans) -> list[Remedy]:
    """The largest half, quarter ... of the batch that fits, where the bytes alone would: it is planned."""
    case = one.case
    if _ruled_out(one, plans=plans) or one.point.refusal is None:
        return []
    key = "train" if case.purpose == "train" else "score"
    for halving in range(1, _MOST_HALVINGS + 1):
        section = getattr(case.variant.config, key)
        rows = section.batch_size >> halving
        if rows < 1:
            return []
        smaller = dataclasses.replace(section, batch_size=rows)
        changed = _with_config(case, dataclasses.replace(case.variant.config, **{key: smaller}))
        try:
            point = plans.try_point(changed)
        except OutOfBudgetError:
            return []
        if point.fits:
            of_ranks = [point.host_held] if short_memory(one) == "host" else [*point.held.values()]
            used = sum(map(max, of_ranks))
            saves = max(0, one.point.refusal.need_bytes - used)
            return [Remedy(change=f"{key}.batch_size = {rows}", saves_bytes=saves, suffices=True, proof="a plan")]
    return []
