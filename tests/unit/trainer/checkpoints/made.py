"""Checkpoints of one rank with made-up contents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import EXIT_FAILURE, EXIT_REFUSED, CheckpointError, ChorusError
from configs.training_schema import Checkpoint
from tests.support.cut_states import some_tensors
from trainer.checkpoints.loading import Wanted, load
from trainer.checkpoints.manifest import ModelFacts, read_manifest
from trainer.checkpoints.pieces import State
from trainer.checkpoints.run_checkpoints import RunCheckpoints, Snapshot
from trainer.data.reading.source import SourceFeatures
from trainer.votes import Ranks

FEATURES = SourceFeatures(dense_names=("I1", "I2"), table_rows={"C1": 10, "C2": 20}, dictionary="d1")
FACTS = ModelFacts(
    members={"deep": "mlp", "solo": "mlp"},
    inputs={name: {"numeric": "dense"} for name in ("deep", "solo")},
    groups={"deep": "shared", "solo": "solo"},
    tables={"shared/C1": (10, 8), "solo/C1": (10, 4)},
    table_rules={"shared/C1": "rowwise_adagrad", "solo/C1": "sgd"},
    features=FEATURES,
)


def snapshot(step: int, *, state: State | None = None, quality: float | None = None, **facts: Any) -> Snapshot:
    """A run at a step; its tensors are those of `some_tensors(step)` unless given."""
    return Snapshot(
        state=some_tensors(step) if state is None else state,
        facts={
            "step": step,
            "progress": {"step": step, "epoch": 0, "row": step, "rows_total": step},
            "model": json.loads(json.dumps(FACTS.as_json())),
            "data": {"seed": 1},
            "learning": {},
            "quality": quality,
            "column_pieces": {},
            **facts,
        },
        texts={"run.toml": "[run]\n", "plan.json": "{}\n"},
    )


def run_checkpoints(folder: Path, ranks: Ranks, **section: Any) -> RunCheckpoints:
    """Of a run in a folder; without background unless asked."""
    return RunCheckpoints(
        folder=str(folder / "checkpoints"), section=Checkpoint(**{"background": False, **section}), ranks=ranks
    )


def save(kept: RunCheckpoints, step: int, **facts: Any) -> Path:
    """Saves a step and waits for it; gives its folder."""
    kept.save(snapshot(step, **facts))
    kept.wait()
    return Path(kept.folder) / f"step_{step:010d}"


def flip(path: Path, at: int) -> None:
    """Flips a bit of a byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def refusal(do: Callable[[], object], kind: type[ChorusError] = CheckpointError) -> str:
    """The sentence of a refusal."""
    with pytest.raises(kind) as refused:
        do()
    assert refused.value.exit_code == EXIT_REFUSED
    return str(refused.value)


def failure(do: Callable[[], object]) -> str:
    """The sentence of what went wrong although nothing was asked for that cannot be."""
    with pytest.raises(ChorusError) as failed:
        do()
    assert (type(failed.value), failed.value.exit_code) == (ChorusError, EXIT_FAILURE)
    return str(failed.value)


def steps(kept: RunCheckpoints) -> list[int]:
    """Of the whole ones, oldest first."""
    return [int(name.removeprefix("step_")) for name in kept.whole()]


def loaded(folder: Path, ranks: Ranks) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of `some_tensors`."""
    zeros = {key: torch.zeros_like(value) for key, value in some_tensors().items()}
    wanted = Wanted(state=zeros, keys={key: key for key in zeros}, column_pieces={})
    load(read_manifest(str(folder)), wanted, ranks=ranks, say=print)
    return zeros


def fails_with(error: str) -> Callable[..., Any]:
    """What takes a function's place and fails as a disk does."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(error)

    return fail
