"""A member's torch.export program gives the module's logits for any number of rows and any bags."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs.errors import CheckpointError
from modules import members
from modules.contracts import MemberInput
from modules.member_fields import AUTO, member_fields
from modules.seeding import seeded
from modules.single_member import SingleMember
from trainer.checkpoints.export import ExportedFacts, LoadedMember
from trainer.checkpoints.member_program import program_of, write_program

ROWS = {"C1": 20, "a.b c": 30, "C3": 11}
DIM = 8


def loaded(kind: str) -> LoadedMember:
    config = members.config_class(kind)(kind=kind)
    fields = member_fields(config, wish=AUTO, dense_names=("I1", "I2"), id_features=tuple(ROWS), numeric_ids={})
    with seeded(1):
        member = fields.build(config, dim=DIM)
        tables = {name: torch.randn(rows, DIM) for name, rows in ROWS.items() if fields.embedded}
        first_order = {name: torch.randn(rows, 1) for name, rows in ROWS.items()} if member.first_order else None
        model = SingleMember(member=member, tables=tables, first_order=first_order).eval()
    return LoadedMember(model=model, facts=facts(kind, ("I1", "I2") if fields.num_dense else ()))


def facts(kind: str, dense: tuple[str, ...]) -> ExportedFacts:
    return ExportedFacts(
        member="it",
        architecture={"kind": kind},
        group="g",
        dim=DIM,
        numeric="dense",
        dense_features=dense,
        table_rows=ROWS,
        dictionary="d",
        step=1,
    )


def some_rows(num_rows: int, *, num_dense: int, seed: int) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    draw = torch.Generator().manual_seed(seed)
    bags = {}
    for name, rows in ROWS.items():
        lengths = torch.randint(0, 4, (num_rows,), generator=draw)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        bags[name] = (torch.randint(0, rows, (int(offsets[-1]),), generator=draw), offsets)
    return torch.randn(num_rows, num_dense, generator=draw), bags


def check(one: LoadedMember, path: Path) -> None:
    write_program(one, str(path))
    program = torch.export.load(str(path)).module()
    for num_rows in (1, 2, 7):
        inputs = some_rows(num_rows, num_dense=len(one.facts.dense_features), seed=num_rows)
        with torch.no_grad():
            torch.testing.assert_close(program(*inputs), one.model(*inputs), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["deepfm"])  # a weight per id, numbers as fields
def test_it_gives_the_modules_logits(kind: str, tmp_path: Path) -> None:
    check(loaded(kind), tmp_path / "it.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("kind", members.kinds())
def test_every_kind(kind: str, tmp_path: Path) -> None:
    check(loaded(kind), tmp_path / "it.pt2")


class _Branching(nn.Module):
    first_order = False

    def forward(self, inputs: MemberInput) -> Tensor:
        total = inputs.embedded_BFD.sum(dim=(1, 2))
        return total if total.sum() > 0 else -total


def test_a_member_that_branches_on_values_is_refused() -> None:
    model = SingleMember(member=_Branching(), tables={name: torch.ones(rows, DIM) for name, rows in ROWS.items()})
    with pytest.raises(CheckpointError, match=r"member it: torch\.export does not take kind 'mine\.branching'"):
        program_of(LoadedMember(model=model.eval(), facts=facts("mine.branching", ())))
