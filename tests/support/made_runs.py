"""Runs with made-up states of one value, saved and started without a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import EXIT_REFUSED, CheckpointError, ChorusError
from configs.schema import RunConfig
from tests.support.runs import small_run
from trainer.checkpoints.manifest import CheckpointManifest, ModelFacts
from trainer.checkpoints.run_checkpoints import RunCheckpoints, Snapshot
from trainer.data.reading.source import SourceFeatures
from trainer.restoring import LiveState, restore
from trainer.runtime import Runtime

MEMBERS = """
[members.deep]
arch = { kind = "mlp", hidden = [4] }
[members.cross]
arch = { kind = "mlp", hidden = [4] }
[members.solo]
tables = "own"
arch = { kind = "deepfm", hidden = [3] }
"""
NEW = '[members.new]\ntables = "own"\narch = { kind = "deepfm", hidden = [3] }\n'
FEATURES = SourceFeatures(dense_names=("I1",), table_rows={"C1": 10, "C2": 6}, dictionary="d1")
DATA = {
    "dense_optimizer": {"deep": "adam", "cross": "adam", "solo": "adam"},
    "day_by_day": False,
    "seed": 1,
    "shuffle_window": 64,
    "parts": [["day_0", 100], ["day_1", 50]],
}


def live_state(config: RunConfig, fill: float, **data: Any) -> LiveState:
    """The tensors of a run on two features, all with one value."""
    members, groups, tables, rules = {}, {}, {}, {}
    tensors: dict[str, Tensor] = {}
    for name, member in config.expanded_members():
        group = name if member.tables == "own" else member.tables
        section = config.table_group(member.tables)
        members[name], groups[name] = json.dumps(dataclasses.asdict(member.arch)), group
        for group_name in (group, f"{group}+first_order")[: 1 + (member.arch.kind == "deepfm")]:
            tables |= {f"{group_name}/{feature}": (rows, section.dim) for feature, rows in FEATURES.table_rows.items()}
            rules |= {f"{group_name}/{feature}": section.optimizer for feature in FEATURES.table_rows}
        tensors[f"model/ensemble.bank.members.{name}.layer.weight"] = torch.full((2, 3), fill)
        tensors[f"optimizer/dense/ensemble.bank.members.{name}.layer.weight/exp_avg"] = torch.full((2, 3), fill)
    for name, (rows, dim) in tables.items():
        tensors[f"model/ensemble.tables.embedding_bags.{name}.weight"] = torch.full((rows, dim), fill)
        if rules[name] != "sgd":
            tensors[f"optimizer/tables/{name}/sum"] = torch.full((rows,), fill)
    facts = ModelFacts(
        members=members,
        inputs={
            name: {"numeric": member.numeric, "features": list(FEATURES.table_rows)}
            for name, member in config.expanded_members()
        },
        groups=groups,
        tables=tables,
        table_rules=rules,
        features=FEATURES,
    )
    return LiveState(
        tensors=tensors,
        column_pieces={},
        facts=facts,
        data={**DATA, "dense_optimizer": dict.fromkeys(members, config.dense.optimizer), **data},
    )


class Runs:
    """Runs below a folder: saving one, and starting one over the others."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self.folder, self.ranks = folder, runtime.ranks
        self.said: list[str] = []

    def checkpoints(self, config: RunConfig, run: str) -> RunCheckpoints:
        section = dataclasses.replace(config.checkpoint, background=False)
        return RunCheckpoints(folder=str(self.folder / run / "checkpoints"), section=section, ranks=self.ranks)

    def save(
        self, *overrides: str, fill: float = 3.0, run: str = "old", text: str = MEMBERS, row: int = 7, **more: Any
    ) -> str:
        """Saves a state all of one value; gives the checkpoint's folder."""
        config = small_run(*overrides, text=text)
        data = {key: more.pop(key) for key in list(more) if key in DATA}
        state = live_state(config, fill, **data)
        facts = {
            "step": 5,
            "progress": {"step": 5, "epoch": 0, "row": row, "rows_total": row},
            "model": state.facts.as_json(),
            "data": state.data,
            "learning": {"early_stop": {"groups": {}}},
            "quality": None,
            "column_pieces": {},
            "averaged": more.pop("averaged", {}),
        }
        tensors = {**state.tensors, **more.pop("extra", {})}
        if facts["averaged"]:
            tensors = {key: value for key, value in tensors.items() if key.startswith("model/")}
        assert not more
        self.checkpoints(config, run).save(Snapshot(state=tensors, facts=facts, texts={"run.toml": "[run]\n"}))
        return str(self.folder / run / "checkpoints" / "step_0000000005")

    def start(
        self, *overrides: str, run: str = "new", text: str = MEMBERS, **data: Any
    ) -> tuple[CheckpointManifest | None, LiveState]:
        """Starts a run whose state is all 0; gives what it goes on from, and its state."""
        config = small_run(*overrides, text=text)
        state = live_state(config, 0.0, **data)
        resumed = restore(
            config,
            state=state,
            run_checkpoints=self.checkpoints(config, run),
            ranks=self.ranks,
            say=self.said.append,
        )
        return resumed, state

    def refused(self, do: Callable[[], object], kind: type[ChorusError] = CheckpointError) -> str:
        with pytest.raises(kind) as refused:
            do()
        assert refused.value.exit_code == EXIT_REFUSED
        return str(refused.value)
