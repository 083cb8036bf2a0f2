"""What an ensemble is made of: table groups, members and the merge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.section import ArchConfig, Section, not_negative, positive, probability

Optimizer = Literal["rowwise_adagrad", "adagrad", "sgd", "adam", "dense_adam"]
DenseOptimizer = Literal["adam", "adagrad", "sgd"]
Numeric = Literal["auto", "dense", "scaled", "ids"]
Init = Literal["pytorch", "xavier_normal"]
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
FIXED_MERGE_RULES = ("mean_logit", "mean_probability", "median", "confidence")
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
    """Columns of every table of the group; a multiple of 4, or any number where all tables are data_parallel."""

    optimizer: Optimizer = "rowwise_adagrad"
    """The update rule, the same under every placement. adam moves the rows that a batch has, as the kernels do;
    dense_adam moves every row at every step, as torch.optim.Adam does, and needs data_parallel."""

    lr: float = 0.05
    """Learning rate."""

    eps: float = 1e-8
    """Added to the denominator."""

    l2: float = 0.0
    """L2 penalty: l2 / 2 times the sum of squares of the whole table joins the loss at every step. Needs data_parallel:
    kernels touch only the rows that a batch has."""

    clip_norm: float | None = None
    """Greatest L2 norm of the gradient of all tables of the group together, of each member's own copies by themselves,
    without the L2 penalty's part; not given: no bound. Needs data_parallel: kernels use gradients up row by row, before
    anybody could know their norm. Members with batch norm over small initial weights have large first gradients, which
    Adam's second moments keep for a thousand steps."""

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
            None
            if self.is_replicated
            else odd_dim("dim", self.dim, remedy=f'{-(-self.dim // 4) * 4}, or placement = "data_parallel"'),
            positive("lr", self.lr),
            positive("eps", self.eps),
            not_negative("l2", self.l2),
            positive("clip_norm", self.clip_norm) if self.clip_norm is not None else None,
            f'clip_norm: {self.clip_norm!r} needs placement = "data_parallel" for every table of the group; elsewhere'
            " kernels use gradients up row by row; dense.clip_norm bounds those of the members"
            if self.clip_norm is not None and not self.is_replicated
            else None,
            *(
                f'{key}: {value!r} needs placement = "data_parallel" for every table of the group; elsewhere kernels'
                " update the rows that a batch has and leave the others alone"
                for key, value, asked in (
                    ("l2", self.l2, self.l2 > 0),
                    ("optimizer", self.optimizer, self.optimizer == "dense_adam"),
                )
                if asked and not self.is_replicated
            ),
            not_negative("init_bound", self.init_bound),
            *(self._confirm(name, placement) for name, placement in self._placements()),
        )

    @property
    def is_replicated(self) -> bool:
        """Whether every rank holds all of every table."""
        return all(placement == "data_parallel" for _, placement in self._placements())

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

    l2: float | None = None
    """L2 penalty of this member's own tables; only with tables = "own", and as tables.own.l2 otherwise."""

    numeric: Numeric = "auto"
    """How it takes numeric features. dense: as a vector; scaled: as one more field each, the value times a learned
    vector; ids: as discretised ids, where the data have them. auto: the published way of its kind."""

    init: Init = "pytorch"
    """How the weights of its linear layers start; xavier_normal: with zero biases, as FuxiCTR's benchmarks do."""

    bagging: Literal["none", "poisson"] = "none"
    """poisson: each training row counts 0, 1, 2 ... times for this member, a function of its seed and the row alone."""

    feature_dropout: float = 0.0
    """Probability with which a whole feature of a row is hidden from this member in training; the rest is scaled up."""

    optimizer: DenseOptimizer | None = None
    """The rule of this member's dense parameters; not given: dense.optimizer."""

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

    tables_seed: int | None = None
    """Seed of its own tables; only with tables = "own"; not given: they follow seed."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("copies", self.copies),
            f"copies: {self.copies} is above {MOST_COPIES}" if self.copies > MOST_COPIES else None,
            positive("lr", self.lr),
            positive("clip_norm", self.clip_norm),
            positive("dim", self.dim),
            not_negative("l2", self.l2),
            probability("feature_dropout", self.feature_dropout),
            *(
                f"{key}: the member is frozen, and this is for its training; remove it"
                for key, given in (
                    ("feature_dropout", self.feature_dropout > 0),
                    ("bagging", self.bagging != "none"),
                    ("optimizer", self.optimizer is not None),
                    ("lr", self.lr is not None),
                )
                if given and self.freeze
            ),
            *(
                f'{key}: only own tables have a member\'s {what}; set it in the table group, or tables = "own"'
                for key, what in (("dim", "dim"), ("l2", "l2"), ("tables_seed", "seed"))
                if getattr(self, key) is not None and self.tables != "own"
            ),
            *(
                f"{key}: with copies above 1 each copy's seed is a hash of its name; remove {key}"
                for key in ("seed", "tables_seed")
                if getattr(self, key) is not None and self.copies > 1
            ),
        )


def odd_dim(field: str, dim: int, *, remedy: str) -> str | None:
    """The problem text for a dim that the kernels cannot have, else None."""
    return f"{field}: {dim} is not a multiple of 4, which the kernels need; take {remedy}" if dim % 4 else None


@dataclass(frozen=True, kw_only=True)
class Loss(Section):
    """What members are trained for: each its own loss, unless they are to be tied to one another.

    All of it is per row and averaged over the global batch; p_m is member m's probability, M the number of members.
    """

    merged_share: float = 0.0
    """From 0, the sum of the members' losses, to 1, M times the loss of the mean logit, which is known to ruin members
    and is there for comparison."""

    distillation: float = 0.0
    """Weight of the pull of each p_m towards the merged prediction; 1 is the published weight (EKTF)."""

    mutual: float = 0.0
    """Weight of the pull of each p_m towards those of better members; 1 is the published weight (EKTF)."""

    def __post_init__(self) -> None:
        self.refuse(
            None if 0.0 <= self.merged_share <= 1.0 else f"merged_share: {self.merged_share!r} is not in [0, 1]",
            not_negative("distillation", self.distillation),
            not_negative("mutual", self.mutual),
        )

    @property
    def ties_members(self) -> bool:
        """Whether a member's gradient depends on the others."""
        return self.merged_share > 0 or self.distillation > 0 or self.mutual > 0


@dataclass(frozen=True, kw_only=True)
class Merge(Section):
    """How the members' predictions become one."""

    rule: MergeRule = "mean_logit"
    """mean_logit: the sigmoid of the mean logit. mean_probability: the mean of the probabilities. median: the sigmoid
    of the median logit. confidence: the logits weighted by how sure each member is of the row. weights, greedy,
    stacking: fitted on saved predictions by tools/merge_predictions.py; name its merge.toml in score.merge_file."""

    def __post_init__(self) -> None:
        self.refuse(
            None
            if self.rule in FIXED_MERGE_RULES
            else f"rule: {self.rule!r} has weights to fit: run tools/merge_predictions.py fit on saved predictions, and"
            " name its merge.toml in score.merge_file"
        )
