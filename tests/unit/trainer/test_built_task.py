"""Which members a built task computes as one, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.command import TRAIN, parse_command
from configs.errors import ConfigError
from configs.schema import RunConfig
from modules.ensemble import Ensemble
from tests.unit.trainer.test_assembly import FEATURES
from trainer.built_task import build_task, member_losses
from trainer.command_line import training_config

STACKED = "[dense]\nbatch_copies = true"
OWN = 'tables = "own"'


def member(name: str, *lines: str, kind: str = "mlp") -> str:
    return "\n".join([f"[members.{name}]", f'arch = {{kind = "{kind}"}}', *lines])


def run(folder: Path, *blocks: str) -> RunConfig:
    path = folder / "run.toml"
    path.write_text("\n".join(blocks))
    return training_config(parse_command(["--config", str(path)], program=TRAIN))


def ensemble(folder: Path, *blocks: str) -> Ensemble:
    return build_task(run(folder, *blocks), features=FEATURES).task.ensemble


def test_members_are_one_where_architecture_fields_and_dim_are(tmp_path: Path) -> None:
    blocks = (
        member("deep", "copies = 2"),
        member("solo", OWN, "feature_dropout = 0.5"),
        member("wide", OWN, "dim = 4"),
        member("scaled", 'numeric = "scaled"'),
        member("fm", "copies = 2", kind="fm"),
        member("cross", kind="dcn"),
        member("kept", "freeze = true", 'weights_from = "runs/old/checkpoints/step_1"', OWN),
    )
    stacked = ensemble(tmp_path, STACKED, *blocks)
    assert [stack.names for stack in stacked.bank._stacks] == [("deep_1", "deep_2", "solo"), ("fm_1", "fm_2")]
    plain = ensemble(tmp_path, *blocks)
    assert plain.bank._stacks == []
    assert list(stacked.state_dict()) == list(plain.state_dict())


def test_the_losses_know_whose_heads_are_taught(tmp_path: Path) -> None:
    finalnet = '[members.{}]\narch = {{kind = "finalnet", loss = "{}"}}\n{}'
    blocks = (member("deep"), finalnet.format("blocks", "taught", "copies = 2"), member("heads", kind="tabm"))
    config = run(tmp_path, *blocks, finalnet.format("plain", "mean", ""), finalnet.format("one", "taught", ""))
    names = [name for name, _ in config.expanded_members()]
    taught = member_losses(config, mean_over_ranks=lambda values: values).taught
    assert [name for index, name in enumerate(names) if index in taught] == ["blocks_1", "blocks_2", "one"]


def test_a_run_without_two_alike_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        ensemble(tmp_path, STACKED, member("deep"), member("wide", OWN, "dim = 4"))
    assert str(refused.value) == (
        "dense.batch_copies: no two trained members have one architecture and read the same fields at the same dim;"
        " remove it"
    )


OF_ONES_OWN = '''"""A kind that asks what a value is."""
from dataclasses import dataclass
import torch
from torch import nn
from configs.section import ArchConfig

@dataclass(frozen=True, kw_only=True)
class Config(ArchConfig):
    """Asks."""
    def build(self, *, num_dense, num_features, dim):
        return Asking()

class Asking(nn.Module):
    first_order = False
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
    def forward(self, inputs):
        return inputs.embedded_BFD.sum(dim=(1, 2)) * (self.weight if self.weight.item() > 0 else -self.weight)
'''


def test_a_kind_that_cannot_be_stacked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_kinds").mkdir()
    (tmp_path / "own_kinds" / "asking.py").write_text(OF_ONES_OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as refused:
        ensemble(tmp_path, STACKED, member("deep", "copies = 2", kind="own_kinds.asking"))
    assert "dense.batch_copies: deep_1, deep_2 of kind" in str(refused.value)
