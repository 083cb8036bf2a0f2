"""Config to objects, in order; the only file that knows every type.

The order is fixed: tables on the meta device, their optimizers declared, plan, shard, initial
weights, the dense optimizer, restore.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel

from configs.errors import CheckpointError, ConfigError
from configs.loader import dump_run
from configs.schema import RunConfig, TableGroup
from modules.ensemble import Ensemble
from modules.seeding import derive_seed, seeded
from modules.tables import TableSpec, build_tables, first_order_tables
from modules.task import EnsembleTask
from sharding.apply import shard_model
from sharding.constraints import table_constraints
from sharding.hardware import live_hardware
from sharding.initialisation import TableInit, initialise_tables
from sharding.plan_files import plan_json
from sharding.planner import plan_tables
from sharding.report import PlanReport, report_plan
from trainer import checkpoints, storage
from trainer.checkpoints import CheckpointManifest, Checkpoints, ModelFacts
from trainer.data.reading.loading import slice_size
from trainer.data.reading.opening import TrainingSources, open_scoring_source, open_sources
from trainer.data.reading.source import SourceFeatures
from trainer.evaluation import Evaluator
from trainer.loop import Training
from trainer.optimizers import TaskOptimizer, update_tables_in_backward
from trainer.progress import Progress
from trainer.runtime import Runtime
from trainer.scoring import ScoringJob

CHECKPOINTS_NAME = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class BuiltTask:
    """The unsharded ensemble, its tables on the meta device."""

    task: EnsembleTask
    specs: tuple[TableSpec, ...]
    facts: ModelFacts


@dataclass(frozen=True, kw_only=True)
class ShardedTask:
    """The ensemble laid over the ranks."""

    built: BuiltTask
    model: DistributedModelParallel
    plan: dict[str, Any]
    report: PlanReport


def build_task(config: RunConfig, *, features: SourceFeatures) -> BuiltTask:
    """The ensemble for these features. A member's weights depend on its seed alone, not on who else is there.

    Raises:
        ConfigError: a placement names a feature that the data do not have.
    """
    groups: dict[str, list[TableSpec]] = {}
    members, group_of, seeds, facts = {}, {}, {}, {}
    for name, member in config.expanded_members():
        seed = derive_seed(config.run.seed, "member", name) if member.seed is None else member.seed
        group = name if member.tables == "own" else member.tables
        if group not in groups:
            section = config.table_group(member.tables)
            if member.tables == "own":
                section = dataclasses.replace(section, dim=member.dim or section.dim)
            default_seed = seed if member.tables == "own" else derive_seed(config.run.seed, "group", group)
            _check_overrides(section, name=member.tables, features=features)
            groups[group] = _group_tables(section, group=group, features=features, default_seed=default_seed)
        dim = groups[group][0].dim
        with seeded(derive_seed(seed, "dense")):
            members[name] = member.arch.build(
                num_dense=len(features.dense_names), num_features=len(features.table_rows), dim=dim
            )
        first_order = first_order_tables(groups[group])
        if members[name].first_order:
            groups.setdefault(first_order[0].group, first_order)
        group_of[name], seeds[name] = group, derive_seed(seed, "dropout")
        facts[name] = f"{json.dumps(dataclasses.asdict(member.arch))} on {group} tables"
    specs = tuple(spec for tables in groups.values() for spec in tables)
    ensemble = Ensemble(tables=build_tables(specs, device="meta"), members=members, groups=group_of, seeds=seeds)
    return BuiltTask(
        task=EnsembleTask(ensemble),
        specs=specs,
        facts=ModelFacts(
            members=facts,
            tables={spec.name: (spec.num_rows, spec.dim) for spec in specs},
            table_rules={spec.name: spec.optimizer for spec in specs},
            features=features,
        ),
    )


def _check_overrides(section: TableGroup, *, name: str, features: SourceFeatures) -> None:
    unknown = sorted(set(section.features) - set(features.table_rows))
    if unknown:
        raise ConfigError(
            f"tables.{name}.features.{unknown[0]}: the data have no such feature;"
            f" they have {', '.join(features.table_rows)}"
        )


def _group_tables(section: TableGroup, *, group: str, features: SourceFeatures, default_seed: int) -> list[TableSpec]:
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
                init_bound=num_rows**-0.5 if section.init_bound is None else section.init_bound,
                seed=derive_seed(seed, "table", feature),
                placement=(override and override.placement) or section.placement,
            )
        )
    return specs


def shard_task(built: BuiltTask, *, rows_per_rank: int, runtime: Runtime) -> ShardedTask:
    """Plans and shards. All ranks must call this.

    Raises:
        PlanError: the tables do not fit.
    """
    hardware = live_hardware(
        device=runtime.device, world_size=runtime.world_size, local_world_size=runtime.local_world_size
    )
    placements = {spec.name: spec.placement for spec in built.specs}
    plan = plan_tables(
        built.task,
        hardware=hardware,
        constraints=table_constraints(placements),
        rows_per_rank=rows_per_rank,
        process_group=runtime.group,
    )
    model = shard_model(built.task, plan=plan, device=runtime.device, process_group=runtime.group)
    made_for = {
        "hardware": dataclasses.asdict(hardware),
        "tables": {name: list(size) for name, size in built.facts.tables.items()},
        "placements": placements,
        "rows_per_rank": rows_per_rank,
    }
    as_json = plan_json(plan, facts=made_for)
    report = report_plan(as_json["tables"], sizes=built.facts.tables, world_size=runtime.world_size)
    return ShardedTask(built=built, model=model, plan=as_json | {"report": report.as_json()}, report=report)


@dataclass(frozen=True, kw_only=True)
class AssembledTraining:
    """A training run, ready to start."""

    training: Training
    sources: TrainingSources
    report: PlanReport
    plan: dict[str, Any]
    resumed_from: str | None


def assemble_training(config: RunConfig, *, folder: str, runtime: Runtime) -> AssembledTraining:
    """Everything a training run needs. All ranks must call this.

    Raises:
        ChorusError: data, checkpoint or plan do not fit the config.
    """
    sources = open_sources(config.data, ranks=runtime)
    built = build_task(config, features=sources.train.features)
    if sources.valid is not None and sources.valid.features != sources.train.features:
        raise ConfigError("data.valid: its features or tables differ from those of data.train")
    if config.train.evaluate_every.steps and sources.valid is None:
        raise ConfigError("train.evaluate_every: there is no data.valid to evaluate on; name its parts")
    update_tables_in_backward(built.task, built.specs)
    rows_per_rank = slice_size(batch_size=config.train.batch_size, world_size=runtime.world_size)
    sharded = shard_task(built, rows_per_rank=rows_per_rank, runtime=runtime)
    model = sharded.model
    initialise_tables(
        model.state_dict(), inits={spec.name: TableInit(seed=spec.seed, bound=spec.init_bound) for spec in built.specs}
    )
    members = config.expanded_members()
    optimizer = TaskOptimizer(
        model,
        specs=built.specs,
        dense=config.dense,
        dense_lrs={name: member.lr or config.dense.lr for name, member in members},
        runtime=runtime,
    )
    progress = Progress()
    run_checkpoints = Checkpoints(
        folder=storage.join(folder, CHECKPOINTS_NAME), keep_last=config.checkpoint.keep_last, runtime=runtime
    )
    data_facts = _data_facts(config, sources)
    resumed = _checkpoint_to_resume(config, run_checkpoints, runtime=runtime)
    tensors = dict(training_tensors(model, optimizer))
    if resumed is not None:
        checkpoints.check_same_model(resumed, built.facts)
        _check_same_data(resumed, data_facts)
        checkpoints.load(resumed, tensors)
        progress = Progress(**resumed.progress)
    texts = {
        checkpoints.RUN_NAME: dump_run(config),
        checkpoints.PLAN_NAME: json.dumps(sharded.plan, indent=2) + "\n",
    }

    def save() -> str:
        state = dict(training_tensors(model, optimizer))
        return run_checkpoints.save(state, progress=progress.as_json(), facts=built.facts, data=data_facts, texts=texts)

    names = [name for name, _ in members]
    evaluator = None
    if sources.valid is not None:
        evaluator = Evaluator(
            source=sources.valid,
            batch_size=config.train.batch_size,
            member_names=names,
            rule=config.merge.rule,
            runtime=runtime,
            prefetch_batches=config.data.prefetch_batches,
        )
    training = Training(
        model=model,
        task=built.task,
        optimizer=optimizer,
        progress=progress,
        source=sources.train,
        evaluator=evaluator,
        member_names=names,
        save=save,
    )
    return AssembledTraining(
        training=training,
        sources=sources,
        report=sharded.report,
        plan=sharded.plan,
        resumed_from=None if resumed is None else resumed.folder,
    )


def training_tensors(model: DistributedModelParallel, optimizer: TaskOptimizer) -> Sequence[tuple[str, torch.Tensor]]:
    """All that a checkpoint holds, live: `model/KEY` and `optimizer/KEY`."""
    weights = [(f"model/{key}", value) for key, value in model.state_dict().items()]
    return weights + [(f"optimizer/{key}", value) for key, value in optimizer.state_tensors()]


def _data_facts(config: RunConfig, sources: TrainingSources) -> dict[str, Any]:
    return {
        "dense_optimizer": config.dense.optimizer,
        "seed": config.data.seed,
        "shuffle_window": config.data.shuffle_window,
        "parts": [[part.name, part.num_rows] for part in sources.train.parts],
    }


def _check_same_data(manifest: CheckpointManifest, facts: dict[str, Any]) -> None:
    saved, ours = manifest.data["dense_optimizer"], facts["dense_optimizer"]
    if saved != ours:
        raise CheckpointError(
            f"dense.optimizer: {saved!r} in {manifest.folder}, {ours!r} in this run; the state of one is of no use to"
            " the other: keep the old value, or start in another run.folder"
        )
    # At an epoch's start any order may follow; within it, another order would repeat some rows and miss others.
    if manifest.progress["row"] == 0:
        return
    for key, value in facts.items():
        if manifest.data[key] != value:
            raise CheckpointError(
                f"data.{'train' if key == 'parts' else key}: {manifest.data[key]} in {manifest.folder}, {value} in this"
                " run; within an epoch the row order must stay: keep the old value, or start in another run.folder"
            )


def _checkpoint_to_resume(
    config: RunConfig, run_checkpoints: Checkpoints, *, runtime: Runtime
) -> CheckpointManifest | None:
    wish = config.checkpoint.resume
    if wish == "never":
        if runtime.from_main(run_checkpoints.whole):
            raise ConfigError(
                f"run.folder: {config.run.folder!r} holds checkpoints and checkpoint.resume is 'never';"
                " take another folder, or resume = 'auto'"
            )
        return None
    own = run_checkpoints.newest()
    if own is not None or wish == "auto":
        return own
    manifest: CheckpointManifest = runtime.from_main(lambda: checkpoints.read_manifest(wish))
    checkpoints.verify(manifest, runtime=runtime)
    return manifest


@dataclass(frozen=True, kw_only=True)
class AssembledScoring:
    """A scoring job, ready to start."""

    job: ScoringJob
    member_names: tuple[str, ...]
    report: PlanReport
    provenance: dict[str, Any]


def assemble_scoring(config: RunConfig, *, checkpoint: str, runtime: Runtime) -> AssembledScoring:
    """Everything a scoring job needs: weights only, under a new plan for this world. All ranks must call this.

    Raises:
        ChorusError: data, checkpoint or plan do not fit.
    """
    manifest: CheckpointManifest = runtime.from_main(lambda: checkpoints.read_manifest(checkpoint))
    source = open_scoring_source(config.data, parts=config.score.parts, ranks=runtime)
    checkpoints.check_same_features(manifest, source.features, root=config.data.root)
    built = build_task(config, features=source.features)
    checkpoints.check_same_model(manifest, built.facts)
    checkpoints.verify(manifest, runtime=runtime)
    sharded = shard_task(built, rows_per_rank=config.score.batch_size, runtime=runtime)
    checkpoints.load(manifest, {f"model/{key}": value for key, value in sharded.model.state_dict().items()})
    names = built.task.ensemble.member_names
    job = ScoringJob(
        model=sharded.model,
        source=source,
        member_names=names,
        rule=config.merge.rule,
        batch_size=config.score.batch_size,
        range_rows=config.score.range_rows,
        runtime=runtime,
        prefetch_batches=config.data.prefetch_batches,
    )
    provenance = {
        "merge_rule": config.merge.rule,
        "checkpoint": {"folder": checkpoint, "step": manifest.step},
        "data": {"root": config.data.root, "dictionary": source.features.dictionary},
    }
    return AssembledScoring(job=job, member_names=names, report=sharded.report, provenance=provenance)
