"""How a run trains and what it keeps: the sections train, dense and checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.interval_schema import Every, SaveEvery, Until
from configs.section import Section, not_negative, positive


@dataclass(frozen=True, kw_only=True)
class Schedule(Section):
    """The learning rate over time: a factor on every lr, of tables and dense parameters."""

    kind: Literal["constant", "cosine", "cyclic", "polynomial", "plateau"] = "constant"
    """How the factor moves once warm-up is over."""

    warmup_steps: int = 0
    """Steps over which the factor rises linearly to 1, with every kind."""

    decay_start_step: int = 0
    """Step at which decay begins (cosine, polynomial)."""

    decay_steps: int = 0
    """Steps over which the factor falls to final_factor (cosine, polynomial)."""

    decay_start_epochs: float = 0.0
    """decay_start_step in epochs or parts of one; with decay_epochs."""

    decay_epochs: float = 0.0
    """decay_steps in epochs or parts of one: both lengths in steps, or both in epochs."""

    power: float = 2.0
    """Exponent of the polynomial decay; 2 is MLPerf's."""

    final_factor: float = 0.0
    """The factor after the decay; the one that each cycle falls towards; the least factor of plateau."""

    cycle_steps: int = 0
    """Steps of a cycle, over which the factor falls by half a cosine before it is 1 again (cyclic)."""

    cycle_epochs: float = 0.0
    """The same in epochs or parts of one; give one of the two."""

    plateau_of: Literal["watch", "early_stop"] = "watch"
    """watch: one factor for the whole job, by train.watch; early_stop: one for every table group and its members, by
    the figure that train.early_stop has for it (plateau)."""

    plateau_factor: float = 0.1
    """What the factor is multiplied by when the figure has not improved (plateau)."""

    plateau_evaluations: int = 1
    """Evaluations without improvement before that (plateau)."""

    def __post_init__(self) -> None:
        decays = self.kind in ("cosine", "polynomial")
        self.refuse(
            not_negative("warmup_steps", self.warmup_steps),
            not_negative("decay_start_step", self.decay_start_step),
            not_negative("decay_steps", self.decay_steps),
            f"final_factor: {self.final_factor!r} is not in [0, 1]" if not 0 <= self.final_factor <= 1 else None,
            positive("power", self.power),
            positive("plateau_evaluations", self.plateau_evaluations),
            not_negative("decay_start_epochs", self.decay_start_epochs),
            not_negative("decay_epochs", self.decay_epochs),
            f"decay_steps: {self.kind} needs the number of steps to fall over, or decay_epochs"
            if decays and not (self.decay_steps or self.decay_epochs)
            else None,
            "decay_epochs: decay_steps or decay_start_step are given too; give both lengths in epochs, or both in steps"
            if (self.decay_epochs or self.decay_start_epochs) and (self.decay_steps or self.decay_start_step)
            else None,
            f"decay_epochs: kind is {self.kind!r}, which has no decay; remove it"
            if (self.decay_epochs or self.decay_start_epochs) and not decays
            else None,
            f"decay_steps: kind is {self.kind!r}, which has no decay; remove it"
            if self.decay_steps and not decays
            else None,
            f"decay_start_step: {self.decay_start_step} is within the {self.warmup_steps} warm-up steps"
            if decays and self.decay_steps and self.decay_start_step < self.warmup_steps
            else None,
            f"plateau_of: kind is {self.kind!r}, which listens to no figure; remove it, or take kind = 'plateau'"
            if self.plateau_of != "watch" and self.kind != "plateau"
            else None,
            f"plateau_factor: {self.plateau_factor!r} is not between 0 and 1"
            if not 0 < self.plateau_factor < 1
            else None,
            *self._cycle_problems(),
        )

    def _cycle_problems(self) -> list[str | None]:
        given = [key for key in ("cycle_steps", "cycle_epochs") if getattr(self, key)]
        signs = [not_negative("cycle_steps", self.cycle_steps), not_negative("cycle_epochs", self.cycle_epochs)]
        if self.kind != "cyclic":
            idle = f"{given[0]}: kind is {self.kind!r}, which has no cycles; remove it" if given else None
            return [*signs, idle]
        return [
            *signs,
            None if len(given) == 1 else "cycle_steps: cyclic needs exactly one of cycle_steps, cycle_epochs",
            "cycle_steps: 1 leaves no step for the factor to fall; give 2 or more" if self.cycle_steps == 1 else None,
            f"warmup_steps: {self.warmup_steps} are no part of the first cycle of {self.cycle_steps}; give fewer"
            if 0 < self.cycle_steps <= self.warmup_steps
            else None,
            "decay_start_step: kind is 'cyclic', whose first cycle begins with the run; remove it"
            if self.decay_start_step
            else None,
        ]


@dataclass(frozen=True, kw_only=True)
class Watch(Section):
    """The validation figure that decides: which checkpoint is best, when a plateau is reached, when to stop."""

    column: str = "merged"
    """merged or a member's name."""

    metric: Literal["auc", "log_loss_nats", "ne"] = "log_loss_nats"
    """auc is better when higher, the others when lower."""

    target: float | None = None
    """Training stops once the figure is at least as good as this; not given: it goes on to train.until."""


@dataclass(frozen=True, kw_only=True)
class EarlyStop(Section):
    """Members that no longer improve are stopped and get their best weights back.

    A member with own tables stops by itself, on its own figure; members that share tables stop together. The job ends
    when all have stopped; at its end those that have not get their best weights too.
    """

    evaluations: int = 0
    """Evaluations in a row without improvement before a stop; 0: never."""

    metric: Literal["auc", "log_loss_nats", "ne"] = "auc"
    """The figure on data.valid; auc is better when higher, the others when lower."""

    min_change: float = 1e-6
    """Least change that counts as improvement."""

    columns: dict[str, str] = field(default_factory=dict)
    """For each table group that several members share, whose figure decides: merged or one of its members, as
    columns.shared = "merged"."""

    def __post_init__(self) -> None:
        idle = {"metric": self.metric != "auc", "min_change": self.min_change != 1e-6, "columns": bool(self.columns)}
        self.refuse(
            not_negative("evaluations", self.evaluations),
            not_negative("min_change", self.min_change),
            *(
                f"{key}: nothing stops; give evaluations"
                for key, given in idle.items()
                if given and not self.evaluations
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Train(Section):
    """The training loop."""

    batch_size: int = 1_024
    """Rows per step over all ranks."""

    until: Until = field(default_factory=lambda: Until(epochs=1))
    """When training ends."""

    schedule: Schedule = field(default_factory=Schedule)
    """The learning rate over time."""

    watch: Watch = field(default_factory=Watch)
    """The validation figure that decides."""

    early_stop: EarlyStop = field(default_factory=EarlyStop)
    """When members are stopped before train.until."""

    day_by_day: bool = False
    """Train the parts of data.train one after the other, each evaluated before it is trained on."""

    pipeline: Literal["auto", "plain", "sparse_dist"] = "auto"
    """sparse_dist overlaps the next batch's id exchange; auto: sparse_dist on cuda, plain on cpu."""

    log_every: Every = field(default_factory=lambda: Every(steps=50))
    """How often metrics are written."""

    evaluate_every: Every = field(default_factory=Every)
    """How often data.valid is evaluated; always at the end."""

    profile_steps: tuple[int, ...] = ()
    """[first, last] step to record with torch.profiler; the trace of every rank lands in the run's folder."""

    def __post_init__(self) -> None:
        steps = self.profile_steps
        in_order = len(steps) == 2 and 1 <= steps[0] <= steps[1]
        self.refuse(
            positive("batch_size", self.batch_size),
            "schedule.kind: 'plateau' listens to evaluations while training; give train.evaluate_every"
            if self.schedule.kind == "plateau" and not (self.evaluate_every.steps or self.evaluate_every.epochs)
            else None,
            "early_stop.evaluations: it listens to evaluations while training; give train.evaluate_every"
            if self.early_stop.evaluations and not (self.evaluate_every.steps or self.evaluate_every.epochs)
            else None,
            "early_stop.evaluations: day_by_day trains on every day once; leave it at 0"
            if self.early_stop.evaluations and self.day_by_day
            else None,
            "schedule.plateau_of: 'early_stop' needs the figures of train.early_stop; give train.early_stop.evaluations"
            if self.schedule.plateau_of == "early_stop" and not self.early_stop.evaluations
            else None,
            *self._cyclic_problems(),
            None
            if self.log_every.steps or self.log_every.epochs
            else "log_every: 0 would never write; give at least 1",
            f"profile_steps: {list(steps)} is not [first, last], counted from 1" if steps and not in_order else None,
            "day_by_day: each day is trained on once; leave train.until at {epochs = 1}"
            if self.day_by_day and self.until.epochs != 1
            else None,
        )

    def _cyclic_problems(self) -> list[str | None]:
        """What a rate that rises again cannot be together with."""
        if self.schedule.kind != "cyclic":
            return []
        return [
            "early_stop.evaluations: every new cycle of schedule.kind = 'cyclic' makes the figure worse for a while,"
            " which would stop members; leave it at 0"
            if self.early_stop.evaluations
            else None,
            "day_by_day: days are no whole cycles of schedule.kind = 'cyclic'; take another kind"
            if self.day_by_day
            else None,
        ]


@dataclass(frozen=True, kw_only=True)
class Dense(Section):
    """The optimizer of the members' dense parameters."""

    optimizer: Literal["adam", "adagrad", "sgd"] = "adam"
    """The rule; its state is per member."""

    lr: float = 0.001
    """Learning rate; members.NAME.lr overrides it."""

    eps: float = 1e-8
    """Added to the denominator by adam and adagrad."""

    l2: float = 0.0
    """L2 penalty: l2 / 2 times the sum of squares of a member's dense parameters joins its loss."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: members compute in bfloat16 (autocast); weights, gradients, losses and tables stay fp32."""

    batch_copies: bool = False
    """Compute members of one architecture as one, with stacked weights; the results differ by rounding. On a CPU mostly
    slower: tools/bench_members.py --copies measures it."""

    clip_norm: float | None = None
    """Greatest L2 norm of one member's dense gradient; not given: no clipping. members.NAME.clip_norm overrides it."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("lr", self.lr),
            positive("eps", self.eps),
            not_negative("l2", self.l2),
            positive("clip_norm", self.clip_norm),
        )


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Section):
    """What is kept of a run so that it can go on."""

    every: SaveEvery = field(default_factory=SaveEvery)
    """How often a checkpoint is written; always at the end."""

    background: bool = True
    """Write while training goes on, from a copy of the state in host memory; false: training waits."""

    keep_last: int = 2
    """Older checkpoints are deleted once a newer one is whole."""

    keep_best: int = 0
    """Checkpoints kept beside those, the best by train.watch; above 0, one is written at every evaluation that is
    among them."""

    resume: str = "auto"
    """auto: go on from the newest whole checkpoint of run.folder; never; or a checkpoint folder to go on from until
    run.folder has a checkpoint of its own."""

    start_from: str = ""
    """A checkpoint folder of another run: a new run takes from it, by name, the members and tables that both have,
    with their optimizer state, and starts at step 0. Used only where there is nothing to resume."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("keep_last", self.keep_last),
            not_negative("keep_best", self.keep_best),
            "start_from: resume names a checkpoint too; give one of them"
            if self.start_from and self.resume not in ("auto", "never")
            else None,
        )
