"""Running jobs: several at a time, nothing twice, averages after what they average, failures by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import ChorusError
from trainer.benchmark import running
from trainer.benchmark.job_process import DONE_NAME, LOG_NAME, PREDICTIONS_NAME, Order
from trainer.benchmark.jobs import Job
from trainer.benchmark.running import Runner
from trainer.predictions.manifest import MANIFEST_NAME


def job(name: str, *, sources: tuple[Job, ...] = ()) -> Job:
    return Job(
        pool=name, member="deep", group=1, replicate=1, window="all", data="data", run=name, sources=sources, scored=()
    )


class MadeProcess:
    """Stands for a process that ends when it is joined, and does `work` then."""

    alive: list[MadeProcess] = []
    most = 0

    def __init__(self, order: Order, work: Any) -> None:
        self.order, self._work, self.exitcode, self.ended = order, work, None, False
        self.sentinel = order.job.name

    def start(self) -> None:
        MadeProcess.alive.append(self)
        MadeProcess.most = max(MadeProcess.most, len(MadeProcess.alive))

    def join(self, timeout: float | None = None) -> None:
        if not self.ended:
            MadeProcess.alive.remove(self)
            self.exitcode, self.ended = self._work(self.order), True

    def terminate(self) -> None:
        self._work = lambda order: 75

    def is_alive(self) -> bool:
        return not self.ended


def finish(order: Order) -> int:
    folder = Path(order.folder)
    (folder / PREDICTIONS_NAME).mkdir(exist_ok=True)
    (folder / PREDICTIONS_NAME / MANIFEST_NAME).write_text("{}")
    (folder / DONE_NAME).write_text(json.dumps({"columns": ["deep"]}))
    return 0


@pytest.fixture(name="work")
def fixture_work(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What jobs do, by pool; all finish unless said otherwise. `began` is the order in which they began."""
    work: dict[str, Any] = {"began": []}

    def made(*, target: Any, args: tuple[Order], name: str) -> MadeProcess:
        work["began"].append(args[0].job.pool)
        return MadeProcess(args[0], work.get(args[0].job.pool, finish))

    MadeProcess.alive, MadeProcess.most = [], 0
    context = SimpleNamespace(Process=made, set_forkserver_preload=lambda names: None)
    monkeypatch.setattr(running.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(running, "wait", lambda sentinels, timeout: sentinels[:1])
    return work


def runner(tmp_path: Path, *, slots: int = 2, said: list[str] | None = None) -> Runner:
    return Runner(str(tmp_path), slots=slots, say=(said if said is not None else []).append)


def test_all_jobs_run_and_no_more_at_a_time_than_asked(tmp_path: Path, work: dict[str, Any]) -> None:
    jobs = [job(name) for name in "abcde"]
    runner(tmp_path, slots=2).run(jobs)
    assert work["began"] == list("abcde")
    assert MadeProcess.most == 2
    assert runner(tmp_path).missing(jobs) == []


def test_what_is_done_is_not_done_again(tmp_path: Path, work: dict[str, Any]) -> None:
    runner(tmp_path).run([job("a"), job("b")])
    said: list[str] = []
    runner(tmp_path, said=said).run([job("a"), job("b"), job("c")])
    assert work["began"] == ["a", "b", "c"]
    assert said[0] == "3 jobs, 1 to do, 2 at a time"


@pytest.mark.parametrize("found", ["", "{", "[]"])
def test_a_job_whose_record_is_spoilt_is_done_again(tmp_path: Path, work: dict[str, Any], found: str) -> None:
    first = runner(tmp_path)
    first.run([job("a"), job("b")])
    Path(first.folder_of(job("b")), DONE_NAME).write_text(found)
    assert first.missing([job("a"), job("b")]) == [job("b")]
    runner(tmp_path).run([job("a"), job("b")])
    assert work["began"] == ["a", "b", "b"]


def test_an_average_waits_for_what_it_averages(tmp_path: Path, work: dict[str, Any]) -> None:
    a, b = job("a"), job("b")
    runner(tmp_path, slots=3).run([job("mean", sources=(a, b)), a, b])
    assert work["began"] == ["a", "b", "mean"]


def test_a_failure_stops_the_others_and_shows_the_end_of_the_log(tmp_path: Path, work: dict[str, Any]) -> None:
    def fail(order: Order) -> int:
        Path(order.folder, LOG_NAME).write_text("one\nerror: no room\n")
        return 1

    work["a"] = fail
    with pytest.raises(ChorusError, match=r"a.*ended with code 1(?s:.*)error: no room"):
        runner(tmp_path).run([job("a"), job("b"), job("c")])
    assert MadeProcess.alive == []
    assert work["began"] == ["a", "b"]


def test_a_process_that_ends_well_without_predictions_has_failed(tmp_path: Path, work: dict[str, Any]) -> None:
    work["a"] = lambda order: 0
    with pytest.raises(ChorusError, match="ended with code 0"):
        runner(tmp_path).run([job("a")])


def test_an_interrupted_benchmark_goes_on(tmp_path: Path, work: dict[str, Any]) -> None:
    def interrupt(order: Order) -> int:
        raise KeyboardInterrupt

    work["a"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        runner(tmp_path, slots=1).run([job("a"), job("b")])
    del work["a"]
    runner(tmp_path, slots=1).run([job("a"), job("b")])
    assert work["began"] == ["a", "a", "b"]


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path, work: dict[str, Any]) -> None:
    said: list[ChorusError] = []

    def start_another(order: Order) -> int:
        with pytest.raises(ChorusError, match="another process runs jobs there") as refused:
            runner(tmp_path).run([job("b")])
        said.append(refused.value)
        return finish(order)

    work["a"] = start_another
    runner(tmp_path, slots=1).run([job("a"), job("b")])
    assert len(said) == 1
    assert work["began"] == ["a", "b"]
