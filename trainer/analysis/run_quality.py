"""What a finished run has reached: every member's validation figures, size and number of epochs."""

from __future__ import annotations

import json
from typing import Any

from configs.errors import ConfigError
from configs.loader import read_run
from modules import members
from modules.member_fields import MemberFields
from modules.merge import MERGED
from modules.tables import FIRST_ORDER_SUFFIX
from trainer import storage
from trainer.checkpoints.manifest import CHECKPOINTS_NAME, RUN_NAME, read_manifest, step_names
from trainer.reporting import METRICS_NAME


def run_quality(folder: str) -> dict[str, Any]:
    """Figures of the last evaluation, which is of the best weights where the run stopped early.

    Returns:
        `members`: name -> kind, auc, log_loss (nats), parameters (with tables: a weight per id counts as one), epochs
        until it stopped or the run ended; `merged`: auc and log_loss; `seconds` of training.

    Raises:
        ConfigError: the folder is not a finished run with evaluations.
    """
    path = storage.join(folder, METRICS_NAME)
    if not storage.is_file(path):
        raise ConfigError(f"--run: {folder!r} has no {METRICS_NAME}; name the folder of a finished run")
    lines = [json.loads(line) for line in storage.read_text(path).splitlines()]
    # The best weights' figures come last, where the run stopped early.
    evaluations = [(line, name) for line in lines for name in ("eval", "best") if f"{name}/{MERGED}/auc" in line]
    checkpoints = storage.join(folder, CHECKPOINTS_NAME)
    steps = step_names(checkpoints)
    if not evaluations or not steps:
        raise ConfigError(f"--run: {folder!r} has no evaluation and checkpoint; name the folder of a finished run")
    manifest = read_manifest(storage.join(checkpoints, steps[-1]))
    run = storage.join(folder, RUN_NAME)
    config = read_run(storage.read_text(run), source=run, resolve_arch=members.config_class, arch_kinds=members.kinds())
    last, which = evaluations[-1]
    found = {}
    for name, member in config.expanded_members():
        fields, group = MemberFields.of_json(manifest.model["inputs"][name]), manifest.model["groups"][name]
        dense = fields.cost(member.arch, dim=_dim(manifest.model, group, fields=fields)).parameters
        found[name] = {
            "kind": member.arch.kind,
            "auc": last[f"{which}/{name}/auc"],
            "log_loss": last[f"{which}/{name}/log_loss_nats"],
            "parameters": dense + _table_parameters(manifest.model, group, fields=fields),
            "epochs": sum(1 for line in lines if f"train/{name}/loss_nats" in line),
        }
    return {
        "members": found,
        "merged": {"auc": last[f"{which}/{MERGED}/auc"], "log_loss": last[f"{which}/{MERGED}/log_loss_nats"]},
        "seconds": lines[-1]["seconds"],
    }


def _dim(model: Any, group: str, *, fields: MemberFields) -> int:
    return int(model["tables"][f"{group}/{fields.features[0]}"][1]) if fields.embedded and fields.features else 0


def _table_parameters(model: Any, group: str, *, fields: MemberFields) -> int:
    total = 0
    for feature in fields.features:
        rows, dim = model["tables"].get(f"{group}/{feature}", (0, 0))
        weighted = f"{group}{FIRST_ORDER_SUFFIX}/{feature}" in model["tables"]
        total += rows * dim + (model["table_rows"][feature] if weighted else 0)
    return total
