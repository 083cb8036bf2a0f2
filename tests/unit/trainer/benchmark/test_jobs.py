"""A benchmark's jobs: which there are, what each runs, and when two are the same."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.benchmark_schema import Averaging, Benchmark, Pool, Window
from configs.errors import ConfigError
from tests.support.benchmarks import made_benchmark
from trainer.benchmark.jobs import Job, jobs

RUN = """
[tables.own]
dim = 4
[tables.common]
dim = 8
[members.deep]
tables = "own"
lr = 0.1
arch = {kind = "mlp", hidden = [8]}
[members.cross]
tables = "common"
arch = {kind = "dcn_v2", hidden = [8]}
"""
DATA = {"all": "/somewhere/data/all-1"}


def benchmark(tmp_path: Path, **pools: Pool) -> Benchmark:
    run = tmp_path / "run.toml"
    run.write_text(RUN)
    strategy = replace(made_benchmark(members=("deep",), groups=1, windows=("all",)).strategies["single"])
    strategies = {"single": replace(strategy, pools=(next(iter(pools)),))}
    made = made_benchmark(members=("deep",), groups=2, windows=("all",))
    made = replace(made, run=str(run), pools=pools, strategies=strategies, headline="single")
    windows = {"all": Window(train=("a",), valid=("b",), tune=("b",), test=("c",))}
    return replace(made, data=replace(made.data, windows=windows))


def run_of(job: Job) -> dict[str, Any]:
    return tomllib.loads(job.run)


def test_each_member_group_and_seed_is_a_job(tmp_path: Path) -> None:
    found = jobs(benchmark(tmp_path, one=Pool(members=("deep", "cross"), seeds=2)), data=DATA)
    assert {(job.member, job.group, job.replicate) for job in found} == {
        (member, group, replicate) for member in ("deep", "cross") for group in (1, 2) for replicate in (1, 2)
    }
    assert len({job.name for job in found}) == len(found) == 8


def test_a_job_has_its_member_its_tables_and_its_rows_alone(tmp_path: Path) -> None:
    deep, cross = (job for job in jobs(benchmark(tmp_path, one=Pool(members=("deep", "cross"))), data=DATA)[:2])
    assert list(run_of(deep)["members"]) == ["deep"]
    assert list(run_of(deep)["tables"]) == ["own"]
    assert list(run_of(cross)["tables"]) == ["common"]
    assert run_of(deep)["data"] == {"root": DATA["all"], "train": ["a"], "valid": ["b"], "seed": 1}
    assert deep.scored == ("b", "c")


def test_seeds_of_weights_and_of_row_order_are_told_apart(tmp_path: Path) -> None:
    found = jobs(benchmark(tmp_path, one=Pool(members=("deep", "cross"), seeds=2)), data=DATA)
    of_deep = [run_of(job) for job in found if job.member == "deep"]
    assert sorted(run["run"]["seed"] for run in of_deep) == [1, 2, 3, 4]
    orders = [run_of(job)["data"]["seed"] for job in found]
    assert len(set(orders)) == len(orders)


def test_one_row_order_for_a_group_where_it_is_asked_for(tmp_path: Path) -> None:
    found = jobs(benchmark(tmp_path, one=Pool(members=("deep",), seeds=3, row_order="same")), data=DATA)
    orders = {job.group: set() for job in found}
    for job in found:
        orders[job.group].add(run_of(job)["data"]["seed"])
    assert orders == {1: {1}, 2: {2}}


def test_together_is_one_job_of_all_members_and_their_copies(tmp_path: Path) -> None:
    pool = Pool(members=("deep", "cross"), jobs="together", copies=2)
    job, _ = jobs(benchmark(tmp_path, one=pool), data=DATA)
    assert {name: member["copies"] for name, member in run_of(job)["members"].items()} == {"deep": 2, "cross": 2}


def test_keys_go_to_every_member_by_name_and_left_out_keys_are_gone(tmp_path: Path) -> None:
    pool = Pool(
        members=("deep", "cross"),
        jobs="together",
        keys=("--members.NAME.tables=common", "--dense.lr=0.5"),
        without=("members.NAME.lr",),
    )
    run = run_of(jobs(benchmark(tmp_path, one=pool), data=DATA)[0])
    assert [member["tables"] for member in run["members"].values()] == ["common", "common"]
    assert "lr" not in run["members"]["deep"]
    assert run["dense"] == {"lr": 0.5}


def test_keys_of_the_benchmark_come_before_those_of_a_pool(tmp_path: Path) -> None:
    pools = {"one": Pool(members=("deep",)), "two": Pool(members=("deep",), keys=("--dense.lr=0.5",))}
    made = replace(benchmark(tmp_path, **pools), keys=("--dense.lr=0.1", "--members.NAME.lr=0.2"))
    rates = {job.pool: run_of(job)["dense"]["lr"] for job in jobs(made, data=DATA)}
    assert rates == {"one": 0.1, "two": 0.5}
    assert all(run_of(job)["members"]["deep"]["lr"] == 0.2 for job in jobs(made, data=DATA))


def test_a_job_is_known_by_what_it_does_and_not_by_where_its_data_lie(tmp_path: Path) -> None:
    made = benchmark(tmp_path, one=Pool(members=("deep",)))
    (job, _), (moved, _) = (jobs(made, data={"all": root}) for root in (DATA["all"], "/else/all-1"))
    (other_rows, _) = jobs(made, data={"all": "/somewhere/data/all-2"})
    (other_keys, _) = jobs(replace(made, pools={"one": Pool(members=("deep",), keys=("--dense.lr=0.5",))}), data=DATA)
    (other_take, _) = jobs(replace(made, pools={"one": Pool(members=("deep",), take="best")}), data=DATA)
    assert job.key == moved.key
    assert len({job.key, other_rows.key, other_keys.key, other_take.key}) == 4


def test_averages_over_checkpoints_are_of_one_training_and_over_seeds_of_a_group(tmp_path: Path) -> None:
    made = benchmark(
        tmp_path,
        base=Pool(members=("deep",), seeds=3, checkpoints=2),
        last=Pool(members=("deep",), average=Averaging(pool="base", over="checkpoints", count=2)),
        soup=Pool(members=("deep",), average=Averaging(pool="base", over="seeds", count=2)),
    )
    found = jobs(made, data=DATA)
    last = [job for job in found if job.pool == "last"]
    soup = [job for job in found if job.pool == "soup"]
    assert [len(job.sources) for job in last] == [1] * 6
    assert [[(of.group, of.replicate) for of in job.sources] for job in soup] == [[(1, 1), (1, 2)], [(2, 1), (2, 2)]]
    assert found.index(last[0]) > max(found.index(of) for of in last[0].sources)


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (Pool(members=("wide",)), "'wide' is no member"),
        (Pool(members=("deep",), keys=("--dense.lrr=1",)), "dense.lrr"),
        (Pool(members=("deep",), keys=("--members.NAME.tables=else",)), "members.deep.tables"),
    ],
)
def test_a_pool_that_makes_no_run_is_refused(tmp_path: Path, pool: Pool, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        jobs(benchmark(tmp_path, one=pool), data=DATA)
