"""What an ensemble is made of: table groups, members and the merge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.section import ArchConfig, Section, not_negative, not_yet, positive

Optimizer = Literal["rowwise_adagrad", "adagrad", "sgd", "adam"]
Placement = Literal[
    "auto",
    "data_parallel",
    "table_wise",
    "row_wise",
    "column_wise",
    "table_row_wise",
    "table_column_wise",
    "grid",
]
MergeRule = Literal[
    "mean_logit",
    "mean_probability",
    "median",
    "weights",
    "greedy",
    "stacking",
    "confidence",
]

Kernel = Literal["auto", "fused", "uvm", "uvm_caching"]

COLUMN_PLACEMENTS = ("column_wise", "table_column_wise", "grid")
MERGE_RULES_NOW = ("mean_logit", "mean_probability", "median")
MOST_COPIES = 10_000


@dataclass(frozen=True, kw_only=True)
class FeatureOverride(Section):
    """What one feature's table does otherwise than its group."""

    placement: Placement | None = None
    """This table's placement."""

    kernel: Kernel | None = None
    """Where this table's rows lie on a GPU host."""


@dataclass(frozen=True, kw_only=True)
class TableGroup(Section):
    """One embedding table per categorical feature, with one dimension and one update rule."""

    dim: int = 16
    """Columns of every table of the group; a multiple of 4."""

    optimizer: Optimizer = "rowwise_adagrad"
    """The update rule, the same under every placement."""

    lr: float = 0.05
    """Learning rate."""

    eps: float = 1e-8
    """Added to the denominator."""

    l2: float = 0.0
    """L2 penalty over the whole table."""

    init_bound: float | None = None
    """Initial weights are uniform in [-bound, bound]; not given: 1/sqrt(rows) as DLRM has it."""

    placement: Placement = "auto"
    """How the tables are laid over the ranks; auto: the planner decides."""

    kernel: Kernel = "auto"
    """Where rows lie on a GPU host: fused: GPU memory; uvm: host memory; uvm_caching: host memory with a cache on the
    GPU; auto: the planner decides. A CPU job has host memory only."""

    column_sums: bool = False
    """Confirms column-wise placements under rowwise_adagrad, where each piece of a row keeps a sum of its own: another
    optimizer than under every other placement."""

    features: dict[str, FeatureOverride] = field(default_factory=dict)
    """Overrides by feature name, as features.C3.placement = "row_wise"."""

    seed: int | None = None
    """Seed of the tables; not given: a hash of run.seed and the group's or member's name."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("dim", self.dim),
            f"dim: {self.dim} is not a multiple of 4, which the kernels need; take {-(-self.dim // 4) * 4}"
            if self.dim % 4
            else None,
            positive("lr", self.lr),
            positive("eps", self.eps),
            f"l2: {self.l2!r} is not implemented yet; leave it at 0.0" if self.l2 else None,
            not_negative("init_bound", self.init_bound),
            *(self._confirm(name, placement) for name, placement in self._placements()),
        )

    def _placements(self) -> list[tuple[str, str]]:
        own = [(f"features.{name}.placement", override.placement) for name, override in self.features.items()]
        return [("placement", self.placement), *((name, placement) for name, placement in own if placement)]

    def _confirm(self, name: str, placement: str) -> str | None:
        if self.optimizer != "rowwise_adagrad" or placement not in COLUMN_PLACEMENTS or self.column_sums:
            return None
        return (
            f"{name}: {placement!r} under rowwise_adagrad keeps one sum per piece of a row, which is another optimizer"
            ' than under the other placements; take optimizer = "adagrad" or "sgd", or confirm with column_sums = true'
        )


@dataclass(frozen=True, kw_only=True)
class Member(Section):
    """One model of the ensemble."""

    arch: ArchConfig
    """The architecture and its own keys: {kind = "mlp", hidden = [256, 64]}."""

    tables: str = "shared"
    """A [tables.NAME] group, shared with every member that names it, or "own"."""

    dim: int | None = None
    """Columns of this member's own tables; only with tables = "own"."""

    lr: float | None = None
    """Learning rate of this member's dense parameters; not given: dense.lr."""

    clip_norm: float | None = None
    """Greatest L2 norm of this member's dense gradient; not given: dense.clip_norm."""

    weights_from: str = ""
    """A checkpoint folder to take this member's weights and tables from, or FOLDER#NAME for another member's; only
    where there is nothing to resume."""

    freeze: bool = False
    """Neither this member nor its tables are trained; a table group shared with it is frozen for all."""

    copies: int = 1
    """Above 1: NAME_1 ... NAME_n, each with its own seed and, with own tables, its own tables."""

    seed: int | None = None
    """Not given: a hash of run.seed and the member's name."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("copies", self.copies),
            f"copies: {self.copies} is above {MOST_COPIES}" if self.copies > MOST_COPIES else None,
            positive("lr", self.lr),
            positive("clip_norm", self.clip_norm),
            positive("dim", self.dim),
            'dim: only own tables have a member\'s dim; set it in the table group, or tables = "own"'
            if self.dim is not None and self.tables != "own"
            else None,
            f"dim: {self.dim} is not a multiple of 4, which the kernels need" if self.dim and self.dim % 4 else None,
            "seed: with copies above 1 each copy's seed is a hash of its name; remove seed"
            if self.seed is not None and self.copies > 1
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class Merge(Section):
    """How the members' predictions become one."""

    rule: MergeRule = "mean_logit"
    """mean_logit: the sigmoid of the mean logit."""

    def __post_init__(self) -> None:
        self.refuse(not_yet("rule", self.rule, MERGE_RULES_NOW))
