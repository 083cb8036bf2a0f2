"""The demo, small: log, preparation, training and scoring through torchx, table and chart; again in no time."""

from __future__ import annotations

import json

from tests.support.commands import run_python


def test_from_a_raw_log_to_a_table(tmp_path):
    # One rank: what several do is tested where they are launched.
    words = ("--folder", str(tmp_path / "demo"), "--rows-per-day", "3000", "--ranks", "1")
    done = run_python("tools/demo.py", *words, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("on the test day") :]
    names = [line.split()[0] for line in table.splitlines()[1:7]]
    assert names == ["deep", "cross", "dot", "factor", "merged", "ceiling"]
    manifest = json.loads((tmp_path / "demo" / "predictions" / "manifest.json").read_text())
    assert manifest["parts"] == {"day_1": 3000}
    assert f"{manifest['metrics']['merged']['auc']:.5f}" in table
    for line in ("run folder", "TensorBoard", "predictions", "chart"):
        assert f"\n{line} " in table
    assert (tmp_path / "demo" / "quality.png").read_bytes().startswith(b"\x89PNG")
    again = run_python("tools/demo.py", *words, timeout=120)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr and "already done" in again.stdout
    assert again.stdout[again.stdout.index("on the test day") :].splitlines()[:8] == table.splitlines()[:8]
