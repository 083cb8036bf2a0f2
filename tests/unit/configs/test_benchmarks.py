"""Every shipped benchmark loads, makes its jobs, and is run by the command in its header."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from configs.benchmark_schema import Averaging, Benchmark, Pool, Published, Strategy
from configs.loader import read_benchmark
from tests.support.benchmarks import made_benchmark
from trainer.benchmark.jobs import jobs
from trainer.benchmark.preparing import prepare_words

ROOT = Path(__file__).resolve().parents[3]
PATHS = sorted((ROOT / "configs" / "benchmarks").glob("*.toml"))
STUDIES = {"criteo-kaggle-0.3pct-study": "criteo-kaggle-0.3pct"}  # of another's run file
MEAN_OF_TWO = Pool(members=("deep",), average=Averaging(pool="kinds", over="seeds", count=2))
OF_NOBODY = Strategy(title="one", family="single", pools=("kinds",), members=("wide",))
OF_THREE = Strategy(title="three", family="single", pools=("kinds",), sizes=(1, 3))
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def test_none_is_forgotten() -> None:
    runs = {path.stem for path in (ROOT / "configs" / "benchmarks" / "runs").glob("*.toml")}
    assert {path.stem for path in PATHS} == runs | set(STUDIES)


@each_path
def test_it_makes_jobs_of_the_run_file_of_its_name(path: Path) -> None:
    benchmark = read_benchmark(str(path))
    assert benchmark.run == f"configs/benchmarks/runs/{STUDIES.get(path.stem, path.stem)}.toml"
    found = jobs(benchmark, data={window: f"data/{window}" for window in benchmark.data.windows})
    assert len({job.name for job in found}) == len(found)
    assert {job.group for job in found} == set(range(1, benchmark.groups + 1))
    assert benchmark.groups >= 3


@each_path
def test_its_title_and_its_command_are_of_its_name(path: Path) -> None:
    assert read_benchmark(str(path)).title.startswith(f"{path.stem.removesuffix('-study')}: ")
    assert re.search(rf"^#   python tools/run_benchmark.py {re.escape(path.stem)} --source ", path.read_text(), re.M)


@each_path
def test_it_prepares_rows_as_the_run_files_header_does(path: Path) -> None:
    """Apart from the parts: schema, ids and numbers are those that the settings were chosen with."""
    benchmark = read_benchmark(str(path))
    header = (ROOT / benchmark.run).read_text().partition("[run]")[0]
    words = [*benchmark.data.options, *(("--schema", benchmark.data.schema) if benchmark.data.schema else ())]
    for flag, value in zip(words[::2], words[1::2], strict=True):
        assert f"{flag} {value}" in header


@each_path
def test_every_member_of_the_run_file_is_trained_or_the_benchmark_is_a_study(path: Path) -> None:
    benchmark = read_benchmark(str(path))
    members = set(tomllib.loads((ROOT / benchmark.run).read_text())["members"])
    trained = {member for pool in benchmark.pools.values() for member in pool.members}
    assert trained == members or (path.stem in STUDIES and trained < members)


def test_the_judged_part_is_not_trained_on() -> None:
    for path in PATHS:
        for window in read_benchmark(str(path)).data.windows.values():
            words = prepare_words(read_benchmark(str(path)).data, window, source="s", output="o")
            vocabulary = words[words.index("--vocabulary-from") + 1 :][: len(window.train)]
            assert tuple(vocabulary) == window.train


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"single": "else"}, "single: 'else' is no strategy"),
        ({"fitted": ("else",)}, "fitted: 'else' is no strategy"),
        ({"pools": {"kinds": Pool(members=("deep",)), "mean": MEAN_OF_TWO}}, r"has 1 seed\(s\) a group"),
        ({"pools": {"other": Pool(members=("deep",))}}, "'kinds' is no pool"),
        ({"strategies": {"single": OF_THREE}, "headline": "single"}, "single.sizes: 3 columns, but a group has 1"),
        ({"published": {"wide": Published(auc=0.9)}}, "published.wide: no pool has this member"),
        ({"strategies": {"single": OF_NOBODY}, "headline": "single"}, "single.members: 'wide' is in none"),
    ],
)
def test_what_names_nothing_is_refused(changes: dict[str, object], said: str) -> None:
    made: Benchmark = made_benchmark(members=("deep",), groups=1, windows=("all",))
    with pytest.raises(ValueError, match=said):
        replace(made, **changes)  # type: ignore[arg-type]
