"""A preparation on a disk that is really full says so, and goes on once there is room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.click_log import synthetic_lines, write_log
from tests.support.commands import run_python
from tests.support.preparing import contents
from tests.support.small_disk import resize
from tools.prepare_criteo import main as prepare


@pytest.fixture
def log(tmp_path: Path) -> str:
    return write_log(tmp_path / "day_0", synthetic_lines(2_000))


def words_for(log: str, output: Path) -> list[str]:
    return ["--input", log, "--output", str(output), "--workers", "1", "--memory-gb", "2"]


def assert_told(code: int, errors: str) -> None:
    assert code == 1, errors
    assert "No space left on device" in errors and "make room and run again" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("words", [("--vocabulary", "hash"), (), ("--reparse",)])
@pytest.mark.parametrize("kilobytes", [64, 300, 400, 500])
def test_a_full_disk(small_disk, log, tmp_path, capfd, words, kilobytes):
    resize(small_disk, f"{kilobytes}k")
    code = prepare([*words_for(log, small_disk / "data"), *words])
    said = capfd.readouterr().err
    if code:  # the more room, the later
        assert_told(code, said)
    assert code == 1 or kilobytes > 300
    resize(small_disk, "50m")
    assert prepare([*words_for(log, small_disk / "data"), *words]) == 0
    assert prepare([*words_for(log, tmp_path / "whole"), *words]) == 0
    assert contents(small_disk / "data") == contents(tmp_path / "whole")


def test_the_program_on_a_full_disk(small_disk, log):
    resize(small_disk, "300k")
    words = words_for(log, small_disk / "data")
    done = run_python("tools/prepare_criteo.py", *words)
    assert_told(done.returncode, done.stderr)
    resize(small_disk, "50m")
    assert run_python("tools/prepare_criteo.py", *words).returncode == 0
