"""Layouts: the worlds and placements that the matrix saves and loads under, and what each pair must come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from configs.ensemble_schema import COLUMN_PLACEMENTS
from configs.loader import read_run
from configs.schema import RunConfig
from modules import members

Outcome: TypeAlias = Literal["equal", "mean", "refused", "FAILED"]

RULES = ("sgd", "adagrad", "rowwise_adagrad", "adam")
WORLDS = (1, 2, 4)
RANKS_PER_HOST = 2  # hosts are emulated: a world of four is two hosts of two ranks
STEPS, MORE_STEPS = 4, 4
_ON_ONE_HOST = ("data_parallel", "table_wise", "row_wise", "column_wise")
_ACROSS_HOSTS = ("table_row_wise", "table_column_wise", "grid")

# Two groups of other dimensions, cut into four and into two pieces; odd sizes, so that shards are uneven.
_RUN = """
[data]
shuffle_window = 64
synthetic = { train_rows = 400, valid_rows = 50, max_table_rows = 61 }
[train]
batch_size = 48
log_every = { steps = 100 }
[dense]
lr = 0.01
[tables.shared]
dim = 16
lr = 0.1
[tables.own]
dim = 8
lr = 0.1
[members.deep]
arch = { kind = "mlp", hidden = [8] }
[members.dot]
tables = "own"
arch = { kind = "dlrm", dense_hidden = [8], top_hidden = [8] }
[checkpoint]
background = false
"""


@dataclass(frozen=True, kw_only=True, order=True)
class Layout:
    """A number of ranks and a placement of all tables."""

    world_size: int
    placement: str

    @property
    def name(self) -> str:
        """For folders and headings."""
        return f"{self.world_size} {self.placement}"

    @staticmethod
    def named(name: str) -> Layout:
        """From its name."""
        world_size, placement = name.split()
        return Layout(world_size=int(world_size), placement=placement)

    @property
    def ranks_per_host(self) -> int:
        """As the ranks are told."""
        return min(RANKS_PER_HOST, self.world_size)

    def keeps_column_sums(self, rule: str) -> bool:
        """Whether its optimizer keeps a sum per piece of a row."""
        return rule == "rowwise_adagrad" and self.placement in COLUMN_PLACEMENTS


def layouts(rule: str, worlds: Sequence[int]) -> list[Layout]:
    """Those that make sense: placements that tell hosts apart need two of them, and on CPU Adam is data-parallel."""
    return [
        Layout(world_size=world, placement=placement)
        for world in worlds
        for placement in (*_ON_ONE_HOST, *(_ACROSS_HOSTS if world > RANKS_PER_HOST else ()))
        if rule != "adam" or placement == "data_parallel"
    ]


def expected(rule: str, *, saved: Layout, loaded: Layout) -> Outcome:
    """What a pair must come to.

    Row-wise Adagrad under column-wise placements keeps a sum per piece of a row: another optimizer, whose state can be
    merged into that of whole rows, but not be told from it.
    """
    if saved.keeps_column_sums(rule) == loaded.keeps_column_sums(rule):
        return "equal"
    return "mean" if saved.keeps_column_sums(rule) else "refused"


def matrix_run(rule: str, layout: Layout, *overrides: str) -> RunConfig:
    """The run of the matrix under a layout, with overrides."""
    words = []
    for group in ("shared", "own"):
        words += [f"--tables.{group}.optimizer={rule}", f"--tables.{group}.placement={layout.placement}"]
        words += [f"--tables.{group}.column_sums=true"] if layout.keeps_column_sums(rule) else []
    return read_run(
        _RUN,
        source="the matrix's run",
        overrides=("--run.device=cpu", *words, *overrides),
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )
