"""A corner of tools/soak.py: a rank is killed while a checkpoint is being written, and the job ends bit-identical."""

from __future__ import annotations

import json

from tests.support.commands import run_python
from tests.support.runs import SMALL_PATH


def test_a_killed_job_ends_like_the_uninterrupted_one(tmp_path):
    words = ("--folder", str(tmp_path), "--kills", "1", "--seed", "8", "--config", str(SMALL_PATH))
    run = ("--train.batch_size=24", "--train.until={steps = 40}", "--checkpoint.every={steps = 5}")
    data = "--data.synthetic={train_rows = 200, valid_rows = 50, max_table_rows = 60}"
    done = run_python("tools/soak.py", *words, *run, data, "--train.evaluate_every={steps = 20}")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["kills"], summary["identical"], summary["jobs"], summary["failures"]) == (1, 1, 1, [])
    assert summary["restarts"] == 1
    assert summary["by_kind"] == {"writing": 1} and summary["while_writing"] == 1
    assert 0 < summary["seconds_to_next_step"]["max"] < 90
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (kill,) = [event for event in events if event["event"] == "kill"]
    assert kill["phase"] in ("steps", "evaluation") and kill["writing"]
    assert "| Kills delivered | 1 |" in (tmp_path / "summary.md").read_text()
