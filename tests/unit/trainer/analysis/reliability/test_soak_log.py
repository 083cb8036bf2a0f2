"""Events add up, also over several starts."""

from __future__ import annotations

import json

from trainer.analysis.reliability.soak_log import SoakLog, summary


def _kill(log: SoakLog, number: int, *, job: int, kind: str = "rank", phase: str = "steps", writing: bool = False):
    log.add("kill", kill=number, job=job, attempt=1, kind=kind, phase=phase, step=3, writing=writing)


def _job(log: SoakLog, number: int, *, attempts: int, kills: int, problems: tuple[str, ...] = ()):
    log.add("job", job=number, problems=list(problems), attempts=attempts, kills=kills, seconds=60.0, folder="f")


def _filled(folder: str) -> SoakLog:
    log = SoakLog(folder)
    _kill(log, 1, job=1, phase="restoring")
    log.add("recovered", kill=1, seconds=9.0)
    _kill(log, 2, job=1, writing=True, kind="writing")
    log.add("recovered", kill=2, seconds=11.0)
    _job(log, 1, attempts=3, kills=2)
    _job(log, 2, attempts=1, kills=0)
    _kill(log, 3, job=3, kind="agent")
    log.add("recovered", kill=3, seconds=None)
    _job(log, 3, attempts=2, kills=1, problems=("weights differ",))
    _kill(log, 4, job=4)
    return log


def test_the_counts_add_up(tmp_path):
    counts = _filled(str(tmp_path)).counts()
    assert (counts.kills, counts.jobs, counts.restarts, counts.untouched) == (4, 3, 3, 1)
    assert (counts.identical, counts.in_flight, len(counts.failures)) == (2, 1, 1)
    assert counts.by_kind == {"rank": 2, "writing": 1, "agent": 1}
    assert counts.by_phase == {"restoring": 1, "steps": 3}
    assert counts.while_writing == 1
    assert counts.as_json()["seconds_to_next_step"] == {"median": 10.0, "max": 11.0}


def test_the_summary_tells_figures_command_and_failures(tmp_path):
    text = summary(_filled(str(tmp_path)).counts(), command="python tools/soak.py --folder x")
    assert "`python tools/soak.py --folder x`" in text
    assert "| Kills delivered | 4 |" in text
    assert "| Seconds from a kill to the next step: median, largest | 10.0 s, 11.0 s |" in text
    assert "| - at: restoring: verifying and loading a checkpoint | 1 |" in text
    assert "Job 3 FAILED: weights differ (see f)" in text


def test_a_later_start_reads_on_and_drops_a_cut_line(tmp_path):
    before = _filled(str(tmp_path)).counts()
    path = tmp_path / "events.jsonl"
    path.write_text(path.read_text() + '{"event": "kill", "job": 4, "atte')
    log = SoakLog(str(tmp_path))
    assert log.counts() == before
    log.add("start", job=4)
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_nothing_yet_is_told_too(tmp_path):
    assert "| Kills delivered | 0 |" in summary(SoakLog(str(tmp_path)).counts(), command="x")
