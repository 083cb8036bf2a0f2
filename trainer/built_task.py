"""BuiltTask: the unsharded ensemble that a config describes, its tables on the meta device."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from configs.ensemble_schema import Member
from configs.errors import ConfigError
from configs.schema import RunConfig, TableGroup
from modules.contracts import MemberInput
from modules.ensemble import Ensemble
from modules.initial_weights import start_as
from modules.losses import MemberLosses
from modules.member_fields import MemberFields, member_fields
from modules.seeding import derive_seed, seeded
from modules.stacked_members import check_stacked
from modules.tables import TableSpec, build_tables, first_order_tables
from modules.task import EnsembleTask
from trainer.checkpoints.manifest import ModelFacts
from trainer.data.reading.source import SourceFeatures


@dataclass(frozen=True, kw_only=True)
class BuiltTask:
    """The unsharded ensemble, its tables on the meta device."""

    task: EnsembleTask
    specs: tuple[TableSpec, ...]
    facts: ModelFacts


@dataclass(frozen=True, kw_only=True)
class _Seat:
    """One member with what it sits on."""

    name: str
    config: Member
    seed: int
    group: str
    section: TableGroup
    fields: MemberFields
    module: nn.Module


def build_task(config: RunConfig, *, features: SourceFeatures, losses: MemberLosses | None = None) -> BuiltTask:
    """The ensemble for these features. A member's weights depend on its seed alone, not on who else is there.

    Args:
        config: The run.
        features: What the rows hold.
        losses: What members are trained for; not given: each its own loss.

    Raises:
        ConfigError: a placement names a feature that the data do not have, a member cannot take the numbers as told, or
            dense.batch_copies cannot be met.
    """
    seats = [_seat(name, member, config=config, features=features) for name, member in config.expanded_members()]
    specs = _tables(seats, config=config, features=features)
    ensemble = Ensemble(
        tables=build_tables(specs, device="meta"),
        members={seat.name: seat.module for seat in seats},
        groups={seat.name: seat.group for seat in seats},
        seeds={seat.name: derive_seed(seat.seed, "dropout") for seat in seats},
        fields={seat.name: seat.fields for seat in seats},
        feature_dropout={seat.name: seat.config.feature_dropout for seat in seats},
        precision=config.dense.precision,
        frozen=[seat.name for seat in seats if seat.config.freeze],
        stacks=_stacks(seats) if config.dense.batch_copies else (),
    )
    return BuiltTask(
        task=EnsembleTask(ensemble, losses=losses),
        specs=tuple(specs),
        facts=ModelFacts(
            members={seat.name: json.dumps(dataclasses.asdict(seat.config.arch)) for seat in seats},
            inputs={seat.name: seat.fields.as_json() for seat in seats},
            groups={seat.name: seat.group for seat in seats},
            tables={spec.name: (spec.num_rows, spec.dim) for spec in specs},
            table_rules={spec.name: spec.optimizer for spec in specs},
            features=features,
        ),
    )


def member_losses(config: RunConfig, *, mean_over_ranks: Callable[[Tensor], Tensor]) -> MemberLosses:
    """What the run's members are trained for.

    Args:
        config: The run.
        mean_over_ranks: The mean over ranks of a small tensor; a collective.
    """
    members = config.expanded_members()
    return MemberLosses(
        merged_share=config.loss.merged_share,
        distillation=config.loss.distillation,
        mutual=config.loss.mutual,
        bag_seeds={
            index: derive_seed(member_seed(config, name, member), "bag")
            for index, (name, member) in enumerate(members)
            if member.bagging == "poisson"
        },
        taught=[index for index, (_, member) in enumerate(members) if member.arch.teaches_heads],
        mean_over_ranks=mean_over_ranks,
    )


def member_seed(config: RunConfig, name: str, member: Member) -> int:
    """The seed that all of a member's randomness derives from."""
    return derive_seed(config.run.seed, "member", name) if member.seed is None else member.seed


def _seat(name: str, member: Member, *, config: RunConfig, features: SourceFeatures) -> _Seat:
    if member.dim is not None and not member.arch.reads_embeddings:
        raise ConfigError(f"members.{name}.dim: {member.arch.kind} reads weights per id and no embeddings; remove it")
    seed = member_seed(config, name, member)
    section = config.table_group(member.tables)
    if member.tables == "own":
        l2 = section.l2 if member.l2 is None else member.l2
        section = dataclasses.replace(section, dim=member.dim or section.dim, l2=l2)
    _check_overrides(section, name=member.tables, features=features)
    try:
        fields = member_fields(
            member.arch,
            wish=member.numeric,
            dense_names=features.dense_names,
            id_features=tuple(features.table_rows),
            numeric_ids=features.numeric_ids,
        )
    except ValueError as error:
        raise ConfigError(f"members.{name}.numeric: {error}") from error
    with seeded(derive_seed(seed, "dense")):
        try:
            module = fields.build(member.arch, dim=section.dim)
        except ValueError as error:  # keys that do not fit these data
            raise ConfigError(f"members.{name}.arch.{error}") from error
        start_as(module, member.init)
    group = name if member.tables == "own" else member.tables
    return _Seat(name=name, config=member, seed=seed, group=group, section=section, fields=fields, module=module)


def _stacks(seats: list[_Seat]) -> list[list[str]]:
    """The trained members that are built alike and read inputs of one shape, where there are several of a sort."""
    sorts: dict[object, list[_Seat]] = {}
    for seat in seats:
        if not seat.config.freeze:
            sorts.setdefault((seat.config.arch, seat.fields, seat.section.dim), []).append(seat)
    stacks = [alike for alike in sorts.values() if len(alike) > 1]
    if not stacks:
        raise ConfigError(
            "dense.batch_copies: no two trained members have one architecture and read the same fields at the same dim;"
            " remove it"
        )
    for alike in stacks:
        try:
            check_stacked({seat.name: seat.module for seat in alike}, _some_rows(alike[0]))
        except ValueError as error:
            raise ConfigError(
                f"dense.batch_copies: {', '.join(seat.name for seat in alike)} of kind"
                f" {alike[0].config.arch.kind!r} cannot be computed as one ({error}); set it to false"
            ) from error
    return [[seat.name for seat in alike] for alike in stacks]


def _some_rows(seat: _Seat) -> MemberInput:
    num_rows, num_features = 3, len(seat.fields.features)
    with seeded(seat.seed):
        return MemberInput(
            torch.randn(num_rows, seat.fields.num_dense),
            torch.randn(num_rows, num_features, seat.section.dim * seat.fields.embedded),
            torch.randn(num_rows, num_features) if seat.module.first_order else None,
        )


def _check_overrides(section: TableGroup, *, name: str, features: SourceFeatures) -> None:
    unknown = sorted(set(section.features) - set(features.table_rows))
    if unknown:
        raise ConfigError(
            f"tables.{name}.features.{unknown[0]}: the data have no such feature;"
            f" they have {', '.join(features.table_rows)}"
        )


def _tables(seats: list[_Seat], *, config: RunConfig, features: SourceFeatures) -> list[TableSpec]:
    """The tables of every group, those of weights per id behind its others; what nobody reads is not there."""
    specs: list[TableSpec] = []
    for group in dict.fromkeys(seat.group for seat in seats):
        on_it = [seat for seat in seats if seat.group == group]
        seat = on_it[0]
        if seat.config.tables == "own":
            tables_seed = seat.config.tables_seed
            seed = seat.seed if tables_seed is None else tables_seed
        else:
            seed = derive_seed(config.run.seed, "group", group)
        tables = _group_tables(
            seat.section, section_name=seat.config.tables, group=group, features=features, default_seed=seed
        )
        embedded = {name for seat in on_it if seat.fields.embedded for name in seat.fields.features}
        weighted = {name for seat in on_it if seat.module.first_order for name in seat.fields.features}
        specs += [table for table in tables if table.feature in embedded]
        specs += first_order_tables([table for table in tables if table.feature in weighted])
    return specs


def _group_tables(
    section: TableGroup, *, section_name: str, group: str, features: SourceFeatures, default_seed: int
) -> list[TableSpec]:
    seed = default_seed if section.seed is None else derive_seed(section.seed, "group", group)
    specs = []
    for feature, num_rows in features.table_rows.items():
        override = section.features.get(feature)
        specs.append(
            TableSpec(
                group=group,
                feature=feature,
                num_rows=num_rows,
                dim=section.dim,
                optimizer=section.optimizer,
                lr=section.lr,
                eps=section.eps,
                l2=section.l2,
                clip_norm=section.clip_norm,
                init_bound=num_rows**-0.5 if section.init_bound is None else section.init_bound,
                seed=derive_seed(seed, "table", feature),
                placement=(override and override.placement) or section.placement,
                kernel=(override and override.kernel) or section.kernel,
                section=section_name,
            )
        )
    return specs
