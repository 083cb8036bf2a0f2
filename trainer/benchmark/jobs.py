"""Jobs: every training and every averaging that a benchmark needs, with the run that each is."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tomli_w

from configs.benchmark_schema import Averaging, Benchmark, Pool, Window
from configs.errors import ConfigError
from configs.loader import config_text, read_run
from configs.overrides import apply_overrides
from modules import members
from trainer import storage

TOGETHER = "all"  # in a job's name, in place of a member's
NAME_IN_KEYS = "NAME"
_OWN = "own"
_ORDER_STEP = 1_000  # between the row orders of members that share a seed


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training of a benchmark, or one averaging of weights, and its scoring."""

    pool: str
    member: str
    group: int
    replicate: int
    window: str
    data: str
    """The prepared folder."""

    run: str
    """The run as TOML, but for its folder."""

    checkpoints: int = 1
    take: str = "last"
    sources: tuple[Job, ...] = ()
    """The trainings whose weights are averaged; none: this is a training."""

    averaging: Averaging | None = None
    scored: tuple[str, ...] = field(default=())
    """Parts that are scored."""

    @property
    def key(self) -> str:
        """A hash of everything that its result depends on, wherever the benchmark's folder lies."""
        name = storage.base_name(self.data)
        parts = [
            self.run.replace(self.data, name),
            name,
            str(self.checkpoints) if self.take == "last" else self.take,
            repr(self.averaging),
            repr(self.scored),
        ]
        parts += [source.key for source in self.sources]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """Its folder's name."""
        place = f"{self.window}.{self.pool}.{self.member}.g{self.group}.s{self.replicate}"
        return f"{place}-{self.key}"


def jobs(benchmark: Benchmark, *, data: Mapping[str, str]) -> list[Job]:
    """All jobs, those that others average before them.

    Args:
        benchmark: What to run.
        data: Window -> prepared folder.

    Raises:
        ConfigError: the run file cannot be read, or a pool makes a run of it that is refused; names the pool.
    """
    tree = tomllib.loads(config_text(benchmark.run))
    if benchmark.keys:
        pools = {
            name: dataclasses.replace(pool, keys=(*benchmark.keys, *pool.keys))
            for name, pool in benchmark.pools.items()
        }
        benchmark = dataclasses.replace(benchmark, pools=pools)
    trained, averaged = [], []
    for name, pool in benchmark.pools.items():
        if pool.average is None:
            trained += list(_trainings(benchmark, name, tree=tree, data=data))
    for name, pool in benchmark.pools.items():
        if pool.average is not None:
            averaged += list(_averagings(name, pool=pool, trained=trained))
    return trained + averaged


def _trainings(benchmark: Benchmark, name: str, *, tree: Mapping[str, Any], data: Mapping[str, str]) -> Iterator[Job]:
    pool = benchmark.pools[name]
    sets = [pool.members] if pool.jobs == "together" else [(member,) for member in pool.members]
    for window_name, window in benchmark.data.windows.items():
        for group in range(1, benchmark.groups + 1):
            for replicate in range(1, pool.seeds + 1):
                for place, names in enumerate(sets):
                    seed = (group - 1) * pool.seeds + replicate
                    order = group if pool.row_order == "same" else seed + _ORDER_STEP * place
                    text = _run_text(
                        tree, pool=pool, names=names, window=window, data=data[window_name], seeds=(seed, order)
                    )
                    if group == replicate == 1:  # the others differ in seeds alone
                        _check(text, where=f"pools.{name}, of {benchmark.run}")
                    yield Job(
                        pool=name,
                        member=TOGETHER if pool.jobs == "together" else names[0],
                        group=group,
                        replicate=replicate,
                        window=window_name,
                        data=data[window_name],
                        run=text,
                        checkpoints=pool.checkpoints,
                        take=pool.take,
                        scored=(*window.tune, *window.test),
                    )


def _run_text(
    tree: Mapping[str, Any],
    *,
    pool: Pool,
    names: Sequence[str],
    window: Window,
    data: str,
    seeds: tuple[int, int],
) -> str:
    """The run file's run with these members alone, on these rows, under these seeds: weights and row order."""
    unknown = [name for name in names if name not in tree.get("members", {})]
    if unknown:
        raise ConfigError(f"members: {unknown[0]!r} is no member of the run file; it has {', '.join(tree['members'])}")
    run = copy.deepcopy(dict(tree))
    run["members"] = {name: run["members"][name] for name in names}
    if pool.copies > 1:
        for member in run["members"].values():
            member["copies"] = pool.copies
    run["run"] = dict(run.get("run", {})) | {"seed": seeds[0], "threads_per_rank": 1}
    places = {"root": data, "train": list(window.train), "valid": list(window.valid), "seed": seeds[1]}
    run["data"] = dict(run.get("data", {})) | places
    for key in _for_each(pool.without, names):
        _leave_out(run, key.split("."))
    run = apply_overrides(run, _for_each(pool.keys, names))
    used = {member.get("tables", "shared") for member in run["members"].values()}
    run["tables"] = {group: table for group, table in run.get("tables", {}).items() if group in used}
    return tomli_w.dumps(run)


def _for_each(keys: Sequence[str], names: Sequence[str]) -> list[str]:
    """The keys, those that hold NAME once for each member."""
    found = [key.replace(f".{NAME_IN_KEYS}.", f".{name}.") for key in keys for name in names]
    return list(dict.fromkeys(found))


def _leave_out(tree: dict[str, Any], path: Sequence[str]) -> None:
    for name in path[:-1]:
        tree = tree.get(name, {})
    tree.pop(path[-1], None)


def _check(text: str, *, where: str) -> None:
    read_run(text, source=where, resolve_arch=members.config_class, arch_kinds=members.kinds())


def _averagings(name: str, *, pool: Pool, trained: Sequence[Job]) -> Iterator[Job]:
    averaging = pool.average
    assert averaging is not None
    of_pool = [job for job in trained if job.pool == averaging.pool]
    if averaging.over == "checkpoints":
        made: list[tuple[tuple[Job, ...], Job]] = [((job,), job) for job in of_pool]
    else:
        places = dict.fromkeys((job.window, job.group, job.member) for job in of_pool)
        sets = [[job for job in of_pool if (job.window, job.group, job.member) == place] for place in places]
        made = [(tuple(jobs_of_place[: averaging.count]), jobs_of_place[0]) for jobs_of_place in sets]
    for sources, like in made:
        yield Job(
            pool=name,
            member=like.member,
            group=like.group,
            replicate=like.replicate,
            window=like.window,
            data=like.data,
            run=like.run,
            sources=sources,
            averaging=averaging,
            scored=like.scored,
        )
