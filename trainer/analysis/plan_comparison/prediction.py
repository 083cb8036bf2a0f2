"""What is predicted for a run that has been: its configuration, its rows, and the plan it had."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError
from configs.hardware_schema import HardwareFile
from configs.loader import config_text, read_run
from configs.schema import RunConfig
from modules import members
from trainer import storage
from trainer.analysis.plan_comparison.run_usage import RunUsage
from trainer.checkpoints.manifest import PLAN_NAME, RUN_NAME
from trainer.data.manifest import MANIFEST_NAME
from trainer.data.reading.source import SourceFeatures
from trainer.planning.capacity_point import CapacityPoint
from trainer.planning.data_facts import DataFacts, IdTraffic, data_facts
from trainer.planning.planned_point import plan_point
from trainer.planning.planning_job import PlanningJob

_VALUE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run's configuration and rows."""

    config: RunConfig
    data: DataFacts


def run_config(text: str, *, source: str) -> RunConfig:
    """The configuration of a run's run.toml."""
    return read_run(text, source=source, resolve_arch=members.config_class, arch_kinds=members.kinds())


def past_run(folder: str, usage: RunUsage, *, data: str = "") -> PastRun:
    """The run of a folder.

    Args:
        folder: Of the run.
        usage: What it took.
        data: Its rows, where they lie now: a prepared folder, a data report or an outline; empty: where the run had
            them, and where they are gone what the run has noted of them, which is all but their skew.

    Raises:
        ConfigError: no run.toml, or the rows are of other tables than the run's.
    """
    path = storage.join(folder, RUN_NAME)
    config = run_config(config_text(path), source=path)
    gone = config.data.root and not storage.is_file(storage.join(config.data.root, MANIFEST_NAME))
    facts = _noted(usage) if gone and not data else data_facts(config, path=data)
    if dict(facts.features.table_rows) != dict(usage.data["table_rows"]):
        raise ConfigError(
            f"--data: {facts.origin} has tables of other sizes than the run in {folder!r} trained; name its own rows"
        )
    return PastRun(config=config, data=facts)


def predicted(past: PastRun, usage: RunUsage, *, folder: str, hardware: HardwareFile) -> CapacityPoint:
    """What planning says of a run, with the plan that its folder has, on hosts of as many ranks as it had.

    Raises:
        ConfigError: the hardware cannot have as many ranks or cannot hold the run, or the plan is not of this run.
    """
    job = PlanningJob(config=past.config, data=past.data, purpose="train")
    num_hosts, host = usage.world_size // usage.ranks_per_host, hardware.host
    if num_hosts > 1 or usage.ranks_per_host > host.ranks:
        hardware = dataclasses.replace(hardware, host=dataclasses.replace(host, ranks=usage.ranks_per_host))
    path = storage.join(folder, PLAN_NAME)
    point = plan_point(job, hardware=hardware, world_size=usage.world_size, plan_path=path)
    if point.step is None:
        why = "" if point.refusal is None else f" ({point.refusal.sentence})"
        raise ConfigError(f"--hardware: {hardware.name!r} cannot hold what this run trained{why}; give another file")
    return point


def facts_of_json(body: Mapping[str, Any]) -> DataFacts:
    """DataFacts from `dataclasses.asdict` of them."""
    features: Mapping[str, Any] = body["features"]
    return DataFacts(
        features=SourceFeatures(**{**features, "dense_names": tuple(features["dense_names"])}),
        traffic={name: IdTraffic(**of) for name, of in body["traffic"].items()},
        **{key: body[key] for key in ("train_rows", "score_rows", "stored_bytes", "origin")},
    )


def _noted(usage: RunUsage) -> DataFacts:
    noted = usage.data
    mean_ids: Mapping[str, float] = noted["mean_ids"]
    num_values = len(noted["dense_names"]) + sum(mean_ids.values()) + 1
    return DataFacts(
        features=SourceFeatures(
            dense_names=tuple(noted["dense_names"]),
            table_rows=noted["table_rows"],
            dictionary=noted["dictionary"],
            numeric_ids=noted["numeric_ids"],
        ),
        traffic={name: IdTraffic(mean_ids=mean) for name, mean in mean_ids.items()},
        train_rows=noted["train_rows"],
        score_rows=noted["train_rows"],
        stored_bytes=round(_VALUE_BYTES * num_values),
        origin="what the run has noted of its rows; their skew is not known, give --data to count it",
    )
