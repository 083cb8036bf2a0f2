"""Benchmark: a data set, the trainings done on it, and the ways in which their predictions are merged.

The files of configs/benchmarks/ are such; tools/run_benchmark.py runs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.section import Section, not_negative, positive, positive_each


@dataclass(frozen=True, kw_only=True)
class Window(Section):
    """Which rows are trained on and which are judged; each window has a prepared folder and trainings of its own."""

    split: dict[str, float] = field(default_factory=dict)
    """Part -> share of all rows, in their order; empty: each file is a part."""

    train: tuple[str, ...]
    """Parts that are trained on; values seen there get ids."""

    valid: tuple[str, ...] = ()
    """Parts that training evaluates on, for early stopping."""

    tune: tuple[str, ...] = ()
    """Parts that merges are fitted on; empty: they are fitted on the judged rows, cross-fitted."""

    test: tuple[str, ...]
    """Parts that are judged."""

    def __post_init__(self) -> None:
        both = sorted(set(self.test) & {*self.train, *self.tune})
        self.refuse(
            None if self.train else "train: no part",
            None if self.test else "test: no part",
            f"test: {both[0]!r} is trained or tuned on" if both else None,
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkData(Section):
    """The rows, where they come from, and how they are cut."""

    layout: Literal["criteo", "table"]
    """Which program prepares them: tools/prepare_criteo.py or tools/prepare_table.py."""

    schema: str = ""
    """The table's schema, a file of configs/tables/; only with layout = "table"."""

    files: tuple[str, ...]
    """Files in the folder that --source names, in time order."""

    options: tuple[str, ...] = ()
    """More words for the program that prepares them, as ["--min-count", "4"]."""

    origin: str
    """Where a reader finds these rows, in a sentence."""

    licence: str
    """On what terms, in a sentence."""

    judged: str
    """What the judged rows are, in a few words, as "the last tenth"."""

    windows: dict[str, Window]
    """Name -> cut."""

    def __post_init__(self) -> None:
        wrong = 'schema: needed with layout = "table", and only there'
        self.refuse(
            wrong if (self.layout == "table") != bool(self.schema) else None,
            None if self.files else "files: none",
            None if self.windows else "windows: none; give one, as [data.windows.all]",
        )


@dataclass(frozen=True, kw_only=True)
class Averaging(Section):
    """Weights that are the mean of other trainings' weights."""

    pool: str
    """The pool whose weights are averaged."""

    over: Literal["checkpoints", "seeds"]
    """checkpoints: of each of its trainings, the last so many; seeds: over the trainings of a group."""

    count: int
    """How many weights make one."""

    rule: Literal["sma", "ema"] = "sma"
    """sma: equal shares; ema: each older checkpoint counts `decay` times the next."""

    decay: float = 0.9
    """Of ema."""

    batch_norm_rows: int = 0
    """Training rows from which batch norm's statistics are taken anew; 0: they are averaged too."""

    def __post_init__(self) -> None:
        self.refuse(
            None if self.count > 1 else f"count: {self.count} makes no mean; give 2 or more",
            None if 0 < self.decay < 1 else f"decay: {self.decay!r} is not between 0 and 1",
            not_negative("batch_norm_rows", self.batch_norm_rows),
        )


@dataclass(frozen=True, kw_only=True)
class Pool(Section):
    """Trainings of the same settings; every group of the benchmark has its own."""

    members: tuple[str, ...]
    """Members of the run file."""

    jobs: Literal["each", "together"] = "each"
    """each: every member is trained in a job of its own; together: all in one, where losses can tie them."""

    seeds: int = 1
    """Trainings of each job in a group, with weights and row order of their own."""

    copies: int = 1
    """Copies of each member in a job, as members.NAME.copies has it."""

    row_order: Literal["own", "same"] = "own"
    """same: all jobs of a group see the rows in one order."""

    keys: tuple[str, ...] = ()
    """Keys of the run that are other than in its file, as trainer/main.py takes them; NAME stands for each member:
    "--members.NAME.dim=5"."""

    without: tuple[str, ...] = ()
    """Keys of the run file that are left out, as "members.NAME.l2"."""

    checkpoints: int = 1
    """How many of a training's last checkpoints are members."""

    take: Literal["last", "best"] = "last"
    """best: of the checkpoints that a training keeps, the best by train.watch, which checkpoint.keep_best keeps."""

    average: Averaging | None = None
    """Given: nothing is trained, weights of another pool are averaged."""

    def __post_init__(self) -> None:
        self.refuse(
            None if self.members else "members: none",
            positive("seeds", self.seeds),
            positive("copies", self.copies),
            positive("checkpoints", self.checkpoints),
            "take: best is one checkpoint" if self.take == "best" and self.checkpoints > 1 else None,
        )


@dataclass(frozen=True, kw_only=True)
class Strategy(Section):
    """A way to come to one prediction, judged in every group and window."""

    title: str
    """What it is, in a few words."""

    family: str
    """What it is drawn with in charts."""

    pools: tuple[str, ...]
    """Whose columns are merged."""

    members: tuple[str, ...] = ()
    """Only these members' columns; empty: all."""

    sizes: tuple[int, ...] = ()
    """How many columns are merged; empty: all of a group at once."""

    subsets: Literal["any", "distinct"] = "any"
    """Of which columns the subsets of a size are made. distinct: no two of one member."""

    rule: Literal["mean_logit", "mean_probability", "median"] = "mean_logit"
    """How they are merged."""

    def __post_init__(self) -> None:
        self.refuse(None if self.pools else "pools: none", positive_each("sizes", self.sizes))


@dataclass(frozen=True, kw_only=True)
class Published(Section):
    """What others report for a member on the same judged rows."""

    auc: float
    """The mean where there are several runs."""

    log_loss_nats: float | None = None
    """Likewise."""

    parameters: int | None = None
    """Tables included."""

    runs: int = 1
    """How many there are."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(Section):
    """Everything that one page of docs/benchmarks/ is made of."""

    title: str
    """The page's heading."""

    about: str
    """What is compared, in a few sentences."""

    run: str
    """The run file that members and settings are of, as configs/benchmarks/runs/adult.toml."""

    keys: tuple[str, ...] = ()
    """Keys of the run that are other than in its file, in all pools; see pools.NAME.keys."""

    groups: int = 3
    """Repetitions of everything, each with seeds of its own; intervals are over them."""

    single: str
    """The strategy that the others are compared with: one model."""

    headline: str
    """The strategy that is held, at its largest size, against the best single member and the baselines, in pairs."""

    fitted: tuple[str, ...] = ()
    """Strategies of whose columns fitted merges are made too: greedy, weights on a simplex, stacking."""

    diversity: tuple[str, ...] = ()
    """Strategies in whose subsets measures of diversity are held against the gain."""

    baselines: Literal["none", "fitted"] = "none"
    """fitted: logistic regression and gradient boosting, fitted on the same training rows."""

    data: BenchmarkData
    """The rows."""

    pools: dict[str, Pool]
    """Name -> trainings."""

    strategies: dict[str, Strategy]
    """Name -> a way to one prediction."""

    published: dict[str, Published] = field(default_factory=dict)
    """Member -> what others report."""

    published_source: str = ""
    """Where that is from, in a sentence."""

    notes: tuple[str, ...] = ()
    """What a reader of the members' table must know, a sentence or two each."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("groups", self.groups),
            *(
                f"{key}: {name!r} is no strategy; there are {', '.join(self.strategies)}"
                for key, names in (
                    ("single", (self.single,)),
                    ("headline", (self.headline,)),
                    ("fitted", self.fitted),
                    ("diversity", self.diversity),
                )
                for name in names
                if name not in self.strategies
            ),
            *(self._strategy_problem(name) for name in self.strategies),
            *(self._pool_problem(name) for name in self.pools),
            *self._published_problems(),
        )

    def columns_of(self, strategy: Strategy) -> dict[tuple[str, str], int]:
        """Pool and member -> the columns that a group has of them in each window, of those that a strategy merges."""
        found: dict[tuple[str, str], int] = {}
        for name in strategy.pools:
            pool = self.pools[name]
            count = pool.seeds * pool.copies * pool.checkpoints
            if pool.average is not None:
                count = 1 if pool.average.over == "seeds" else self.pools[pool.average.pool].seeds
            found |= {(name, member): count for member in pool.members if member in (strategy.members or pool.members)}
        return found

    def _strategy_problem(self, name: str) -> str | None:
        strategy, at = self.strategies[name], f"strategies.{name}"
        unknown = [pool for pool in strategy.pools if pool not in self.pools]
        if unknown:
            return f"{at}.pools: {unknown[0]!r} is no pool; there are {', '.join(self.pools)}"
        if any(self._pool_problem(pool) for pool in strategy.pools):
            return None
        columns = self.columns_of(strategy)
        absent = sorted(set(strategy.members) - {member for _, member in columns})
        if absent:
            return f"{at}.members: {absent[0]!r} is in none of its pools"
        there = len(columns) if strategy.subsets == "distinct" else sum(columns.values())
        if max(strategy.sizes, default=1) > there:
            return f"{at}.sizes: {max(strategy.sizes)} columns, but a group has {there} to merge"
        return None

    def _published_problems(self) -> list[str | None]:
        members = {member for pool in self.pools.values() for member in pool.members}
        return [f"published.{name}: no pool has this member" for name in self.published if name not in members]

    def _pool_problem(self, name: str) -> str | None:
        average = self.pools[name].average
        if average is None:
            return None
        of = self.pools.get(average.pool)
        if of is None or of.average is not None:
            return f"pools.{name}.average.pool: {average.pool!r} is no pool of trainings"
        if self.pools[name].members != of.members or of.jobs != "each":
            return f"pools.{name}.average.pool: {average.pool!r} must train the same members, each in its own job"
        if average.over == "checkpoints" and of.checkpoints < average.count:
            return f"pools.{name}.average.count: pool {average.pool!r} keeps {of.checkpoints} checkpoint(s)"
        if average.over == "seeds" and of.seeds < average.count:
            return f"pools.{name}.average.count: pool {average.pool!r} has {of.seeds} seed(s) a group"
        return None
