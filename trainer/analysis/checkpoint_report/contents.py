"""The contents of one checkpoint as plain values: progress, members, tables, plan, sizes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from configs.errors import CheckpointError
from configs.loader import read_run
from configs.schema import RunConfig
from modules import members
from sharding.initialisation import TableInit, initial_block
from trainer import storage
from trainer.analysis.checkpoint_report.tensor_figures import TensorFigures
from trainer.built_task import build_task
from trainer.checkpoints.manifest import PLAN_NAME, RUN_NAME
from trainer.checkpoints.stored_checkpoint import DENSE_STATE, StoredCheckpoint
from trainer.checkpoints.verification import Advance
from trainer.data.reading.source import SourceFeatures

# States that are zero exactly where no gradient came, in the order in which they are asked.
_TOUCHED_BY = ("sum", "column_sums", "exp_avg_sq")


def contents(checkpoint: StoredCheckpoint, *, advance: Advance | None) -> dict[str, Any]:
    """What a checkpoint holds.

    Args:
        checkpoint: The checkpoint.
        advance: Told of the bytes that were read; None: figures of values are left out, and no weights are read.

    Raises:
        CheckpointError: something cannot be read.
    """
    manifest = checkpoint.manifest
    plan = _plan(checkpoint)
    return {
        "format": "chorus-checkpoint-report",
        "format_version": 1,
        "folder": checkpoint.folder,
        "step": manifest.step,
        "progress": dict(manifest.progress),
        "world_size": manifest.world_size,
        "quality": manifest.quality,
        "averaged": dict(manifest.averaged),
        "members": [_member(checkpoint, name, advance=advance) for name in manifest.model["members"]],
        "tables": _Tables(checkpoint, plan=plan, advance=advance).as_json(),
        "features": {
            "dense": list(manifest.model["dense_features"]),
            "table_rows": dict(manifest.model["table_rows"]),
            "dictionary": manifest.model["dictionary"],
        },
        "dense_optimizer": manifest.data["dense_optimizer"],
        "plan": {
            "fingerprint": plan.get("fingerprint"),
            "world_size": plan.get("made_for", {}).get("world_size"),
            "tables_per_sharding_type": dict(
                sorted(Counter(table["sharding_type"] for table in plan["tables"].values()).items())
            ),
        },
        "bytes": _sizes(checkpoint),
    }


def bytes_to_read(checkpoint: StoredCheckpoint) -> int:
    """Of weights and tables' states, for the progress."""
    return checkpoint.num_bytes(_keys_read(checkpoint))


def _keys_read(checkpoint: StoredCheckpoint) -> list[str]:
    states = [key for table in checkpoint.table_weights() for key in checkpoint.table_states(table).values()]
    return checkpoint.weights + states


def _figures(
    checkpoint: StoredCheckpoint,
    keys: Iterable[str],
    *,
    advance: Advance,
    look: Callable[[Tensor], None] | None = None,
) -> TensorFigures:
    total = TensorFigures()
    for key in keys:
        for block in checkpoint.blocks(key):
            total += TensorFigures.of_block(block)
            if look is not None:
                look(block)
            advance(block.numel() * block.element_size())
    return total


def _member(checkpoint: StoredCheckpoint, name: str, *, advance: Advance | None) -> dict[str, Any]:
    model = checkpoint.manifest.model
    keys = list(checkpoint.member_weights(name).values())
    states = [key for key in checkpoint.index if key.startswith(f"{DENSE_STATE}ensemble.bank.members.{name}.")]
    described = {
        "name": name,
        "architecture": json.loads(model["members"][name]),
        "group": model["groups"][name],
        "num_parameters": sum(map(checkpoint.num_values, keys)),
        "optimizer_states": sorted({key.rpartition("/")[2] for key in states}),
    }
    return described if advance is None else described | _figures(checkpoint, keys, advance=advance).as_json()


class _Tables:
    """Describes the tables, each read once.

    Args:
        checkpoint: Where they are.
        plan: The plan they were laid out by.
        advance: Told of bytes read; None: no values are read.
    """

    def __init__(self, checkpoint: StoredCheckpoint, *, plan: Mapping[str, Any], advance: Advance | None) -> None:
        self._checkpoint = checkpoint
        self._plan = plan["tables"]
        self._advance = advance
        self._inits: dict[str, TableInit] | None = None

    def as_json(self) -> list[dict[str, Any]]:
        """A mapping for each table, in the order of the model."""
        keys = self._checkpoint.table_weights()
        return [self._table(name, keys[name]) for name in self._checkpoint.manifest.model["tables"]]

    def _table(self, name: str, key: str) -> dict[str, Any]:
        checkpoint = self._checkpoint
        rows, dim = checkpoint.index[key].shape
        states = checkpoint.table_states(name)
        described: dict[str, Any] = {
            "name": name,
            "rows": rows,
            "dim": dim,
            "optimizer": checkpoint.manifest.model["table_rules"][name],
            "placement": self._plan.get(name, {}).get("sharding_type"),
        }
        if self._advance is None:
            return described | {"states": {state: {} for state in states}}
        decisive = next((state for state in _TOUCHED_BY if state in states), None)
        count = _RowCount(None if decisive else self._initial().get(name), num_rows=rows)
        described |= _figures(checkpoint, [key], advance=self._advance, look=None if decisive else count.add).as_json()
        described["states"] = {
            state: _figures(
                checkpoint, [at], advance=self._advance, look=count.add if state == decisive else None
            ).as_json()
            for state, at in states.items()
        }
        if decisive is None and name not in self._initial():
            return described | {"rows_untouched": None, "untouched_by": "unknown: it began with another run's weights"}
        told_by = f"{decisive} is zero" if decisive else "equal to the initial value"
        return described | {"rows_untouched": count.found, "untouched_by": told_by}

    def _initial(self) -> dict[str, TableInit]:
        """Table -> how it began, without those that began as another run's."""
        if self._inits is None:
            self._inits = _initial_values(self._checkpoint)
        return self._inits


class _RowCount:
    """Counts the rows no gradient came to, block after block.

    Args:
        init: How the table began, where rows are compared with that; None: rows of a state are compared with zero.
        num_rows: Rows of the table. A state that is longer holds them again for every column piece.
    """

    def __init__(self, init: TableInit | None, *, num_rows: int) -> None:
        self._init = init
        self._num_rows = num_rows
        self._first = 0
        self.found = 0

    def add(self, block: Tensor) -> None:
        """The next rows."""
        rows = block[: max(self._num_rows - self._first, 0)].reshape(-1, *block.shape[1:] or (1,))
        expected = torch.zeros_like(rows) if self._init is None else self._drawn(rows)
        self._first += len(block)
        self.found += int((rows == expected).all(dim=1).sum())

    def _drawn(self, rows: Tensor) -> Tensor:
        assert self._init is not None
        num_rows, dim = rows.shape
        return torch.from_numpy(
            initial_block(
                self._init, first_row=self._first, num_rows=num_rows, first_column=0, num_columns=dim, dim=dim
            )
        )


def _initial_values(checkpoint: StoredCheckpoint) -> dict[str, TableInit]:
    config = run_of(checkpoint)
    if config.checkpoint.start_from or config.checkpoint.resume not in ("auto", "never"):
        return {}
    taken = {name for name, member in config.expanded_members() if member.weights_from}
    model = checkpoint.manifest.model
    features = SourceFeatures(
        dense_names=tuple(model["dense_features"]),
        table_rows=model["table_rows"],
        dictionary=model["dictionary"],
        numeric_ids=model["numeric_ids"],
    )
    groups = {model["groups"][name] for name in taken}
    return {
        spec.name: TableInit(seed=spec.seed, bound=spec.init_bound)
        for spec in build_task(config, features=features).specs
        if spec.group.partition("+")[0] not in groups
    }


def run_of(checkpoint: StoredCheckpoint) -> RunConfig:
    """The checkpoint's run.

    Raises:
        ConfigError: its run.toml is none.
    """
    path = storage.join(checkpoint.folder, RUN_NAME)
    return read_run(storage.read_text(path), source=path, resolve_arch=members.config_class, arch_kinds=members.kinds())


def _plan(checkpoint: StoredCheckpoint) -> dict[str, Any]:
    path = storage.join(checkpoint.folder, PLAN_NAME)
    try:
        plan: dict[str, Any] = storage.read_json(path)
        if not all(isinstance(table["sharding_type"], str) for table in plan["tables"].values()):
            raise ValueError("a table without a sharding_type")
        return plan
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a plan ({error!r}); tools/inspect_checkpoint.py verify tells more"
        ) from error


def _sizes(checkpoint: StoredCheckpoint) -> dict[str, int]:
    tables = list(checkpoint.table_weights().values())
    table_states = [key for table in checkpoint.table_weights() for key in checkpoint.table_states(table).values()]
    dense_states = [key for key in checkpoint.index if key.startswith(DENSE_STATE)]
    return {
        "tables": checkpoint.num_bytes(tables),
        "table_states": checkpoint.num_bytes(table_states),
        "dense": checkpoint.num_bytes([key for key in checkpoint.weights if key not in set(tables)]),
        "dense_states": checkpoint.num_bytes(dense_states),
        "on_disk": sum(proof["num_bytes"] for proof in checkpoint.manifest.files.values()),
        "num_files": len(checkpoint.manifest.files),
    }
