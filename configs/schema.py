"""RunConfig and its sections: every key a run has, with its meaning and default.

Table groups, members and the merge are in configs/ensemble_schema.py, training and checkpoints in
configs/training_schema.py, intervals in configs/interval_schema.py, batch scoring in configs/score_schema.py.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from configs.ensemble_schema import Loss, Member, Merge, TableGroup, odd_dim
from configs.score_schema import Score
from configs.section import Section, not_negative, positive
from configs.training_schema import Checkpoint, Dense, Train

RESERVED_NAMES = ("merged", "label", "part", "row", "shared", "own")
NAME_PATTERN = re.compile(r"[a-z0-9_]+")


def _bad_name(what: str, name: str, *, reserved: tuple[str, ...]) -> str | None:
    if not NAME_PATTERN.fullmatch(name):
        return f"{what}.{name}: a name is made of a-z, 0-9 and _ only"
    if name in reserved:
        return f"{what}.{name}: this name is reserved; choose another"
    return None


@dataclass(frozen=True, kw_only=True)
class Run(Section):
    """The run itself: its name, where it writes, its seed and its processes."""

    name: str = "run"
    """A name for folders and logs."""

    folder: str = ""
    """Where the run writes; empty: runs/NAME/START_TIME. A folder given here can be resumed."""

    seed: int = 1
    """Every member's and table's seed is a hash of this and its name, unless given."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda with nccl where a GPU is there, else cpu with gloo."""

    threads_per_rank: int = 1
    """CPU threads of each process; more only where processes do not share the cores."""

    hang_seconds: int = 60
    """How long a rank may take over one step before the job ends on all ranks, naming it."""

    timeout_seconds: int = 600
    """The same for what takes longer than a step: planning, restoring, evaluating, publishing."""

    plan: str = ""
    """A plan.json to lay the tables out by, as a run's folder has it; empty: the planner decides."""

    errors: Literal["sentence", "traceback"] = "sentence"
    """traceback: print the Python traceback too when the run is refused or fails."""

    def __post_init__(self) -> None:
        self.refuse(
            _bad_name("name", self.name, reserved=()) and f"name: {self.name!r} may hold a-z, 0-9 and _ only",
            positive("threads_per_rank", self.threads_per_rank),
            positive("hang_seconds", self.hang_seconds),
            positive("timeout_seconds", self.timeout_seconds),
            not_negative("seed", self.seed),
        )


@dataclass(frozen=True, kw_only=True)
class Synthetic(Section):
    """The stream that is used when `data.root` is empty: made on the fly, needs no file."""

    train_rows: int = 65_536
    """Rows in an epoch of training."""

    valid_rows: int = 16_384
    """Rows of validation."""

    max_table_rows: int = 20_000
    """Distinct values of the largest of the 26 categorical features."""

    seed: int = 7
    """Seed of the planted teacher and of every row."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("train_rows", self.train_rows),
            positive("valid_rows", self.valid_rows),
            positive("max_table_rows", self.max_table_rows),
        )


@dataclass(frozen=True, kw_only=True)
class Data(Section):
    """The prepared rows and their order."""

    root: str = ""
    """Folder made by tools/prepare_criteo.py; empty: the synthetic stream."""

    train: tuple[str, ...] = ()
    """Parts to train on, in this order; empty is allowed only without data.root."""

    valid: tuple[str, ...] = ()
    """Parts to evaluate on while training; empty: no evaluation."""

    seed: int = 1
    """Row order is a function of this and the epoch alone."""

    shuffle_window: int = 131_072
    """Rows are permuted within windows of this many rows made of shuffled blocks; 0: file order. Two windows should
    fit in free memory: the one being read and the next, which is fetched ahead."""

    prefetch_batches: int = 2
    """Batches each rank makes ahead in a thread of its own; 0: none. Rows and their order are the same."""

    synthetic: Synthetic = field(default_factory=Synthetic)
    """The stream used when data.root is empty."""

    def __post_init__(self) -> None:
        both = sorted(set(self.train) & set(self.valid))
        doubled = sorted(name for name, count in Counter(self.train).items() if count > 1)
        self.refuse(
            not_negative("shuffle_window", self.shuffle_window),
            not_negative("prefetch_batches", self.prefetch_batches),
            not_negative("seed", self.seed),
            f"valid: {both[0]!r} is a training part too; a row must not be in both" if both else None,
            f"train: {doubled[0]!r} is named twice; its rows would be trained twice" if doubled else None,
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """One run, whole."""

    run: Run = field(default_factory=Run)
    """The run itself."""

    data: Data = field(default_factory=Data)
    """The prepared rows and their order."""

    train: Train = field(default_factory=Train)
    """The training loop."""

    dense: Dense = field(default_factory=Dense)
    """The optimizer of the members' dense parameters."""

    tables: dict[str, TableGroup] = field(default_factory=dict)
    """Table groups by name; [tables.own] holds the defaults of own tables."""

    members: dict[str, Member] = field(default_factory=dict)
    """The members by name."""

    loss: Loss = field(default_factory=Loss)
    """What members are trained for."""

    merge: Merge = field(default_factory=Merge)
    """How the members' predictions become one."""

    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    """What is kept of a run."""

    score: Score = field(default_factory=Score)
    """Batch scoring."""

    def __post_init__(self) -> None:
        expanded = Counter(name for name, _ in self.expanded_members())
        doubled = sorted(name for name, count in expanded.items() if count > 1)
        own = {name for name, member in self.expanded_members() if member.tables == "own"}
        groups = set(self.tables) | {"shared", "own"}
        used = {member.tables for member in self.members.values()} | {"shared", "own"}
        self.refuse(
            None if self.members else "members: none; give at least one, as [members.deep]",
            *(_bad_name("members", name, reserved=RESERVED_NAMES) for name in self.members),
            *(_bad_name("tables", name, reserved=()) for name in self.tables),
            *(f"members.{name}: the copies of another member have this name too" for name in doubled),
            *(f"tables.{name}: no member names it; remove it" for name in sorted(set(self.tables) - used)),
            *(
                f"tables.{name}: a member with own tables has this name; rename one of them"
                for name in sorted(own & set(self.tables))
            ),
            *(
                f"members.{name}.tables: no [tables.{member.tables}]; choose one of {', '.join(sorted(groups))}"
                for name, member in self.members.items()
                if member.tables not in groups
            ),
            None
            if self.train.watch.column in {"merged", *expanded}
            else f"train.watch.column: no member {self.train.watch.column!r};"
            f" take merged or one of {', '.join(expanded)}",
            *self._own_table_problems(),
            *self._bagging_problems(),
            "loss: a single member has nobody to be tied to; remove merged_share, distillation and mutual"
            if self.loss.ties_members and len(expanded) == 1
            else None,
            *self._early_stop_problems(),
            "checkpoint.every.cycles: the rates have no cycles; give train.schedule.kind = 'cyclic', or remove it"
            if self.checkpoint.every.cycles and self.train.schedule.kind != "cyclic"
            else None,
            "checkpoint.every.epochs: train.day_by_day writes a checkpoint after each day; remove it"
            if self.checkpoint.every.epochs and self.train.day_by_day
            else None,
            "members: all are frozen, so nothing would be trained; leave one without freeze"
            if self.members and all(member.freeze for member in self.members.values())
            else None,
        )

    def _own_table_problems(self) -> list[str | None]:
        """What a member asks of its own tables and their placement cannot give."""
        own = self.table_group("own")
        if own.is_replicated:
            return []
        remedy = 'or tables.own.placement = "data_parallel"'
        return [
            *(
                odd_dim(f"members.{name}.dim", member.dim, remedy=f"{-(-member.dim // 4) * 4}, {remedy}")
                for name, member in self.members.items()
                if member.dim
            ),
            *(
                f"members.{name}.l2: {member.l2} needs every row of the table at every step; give 0.0, {remedy}"
                for name, member in self.members.items()
                if member.l2
            ),
        ]

    def _bagging_problems(self) -> list[str | None]:
        """Bags that would mean nothing."""
        bagged = [name for name, member in self.members.items() if member.bagging != "none"]
        key = f"members.{bagged[0]}.bagging" if bagged else ""
        only_merged = self.loss.merged_share == 1 and not (self.loss.distillation or self.loss.mutual)
        return [
            f"{key}: train.day_by_day numbers every day's rows alike, so the bags would be alike too; take 'none'"
            if bagged and self.train.day_by_day
            else None,
            f"{key}: with loss.merged_share = 1 no member has a loss of its own that a bag could weigh; take 'none'"
            if bagged and only_merged
            else None,
        ]

    def _early_stop_problems(self) -> list[str | None]:
        stop = self.train.early_stop
        if not stop.evaluations:
            return []
        key = "train.early_stop"
        problems: list[str | None] = []
        groups = self.members_by_group()
        for group, column in stop.columns.items():
            choices = ["merged", *groups.get(group, [])]
            if group not in groups:
                problems.append(f"{key}.columns.{group}: no such table group; they are {', '.join(groups)}")
            elif column not in choices:
                problems.append(f"{key}.columns.{group}: {column!r} is not one of {', '.join(choices)}")
        for group, names in groups.items():
            if len(names) > 1 and group not in stop.columns:
                problems.append(
                    f"{key}.columns: {', '.join(names)} share tables and stop together; say whose figure decides, as"
                    f' columns.{group} = "merged"'
                )
        if self.loss.ties_members:
            problems.append(
                f"{key}.evaluations: [loss] ties members to one another, so none can stop by itself; give 0"
            )
        return problems

    def members_by_group(self) -> dict[str, list[str]]:
        """Table group -> its members, copies spelled out; a member with own tables is its own group."""
        groups: dict[str, list[str]] = {}
        for name, member in self.expanded_members():
            groups.setdefault(name if member.tables == "own" else member.tables, []).append(name)
        return groups

    def expanded_members(self) -> list[tuple[str, Member]]:
        """The members as they will be built, copies spelled out: [(name, member)]."""
        return [
            (name if member.copies == 1 else f"{name}_{copy}", member)
            for name, member in self.members.items()
            for copy in range(1, member.copies + 1)
        ]

    def table_group(self, name: str) -> TableGroup:
        """The group of that name; `shared` and `own` exist with defaults when not written."""
        return self.tables.get(name, TableGroup())
