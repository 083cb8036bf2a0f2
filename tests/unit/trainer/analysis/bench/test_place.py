"""The folder a benchmark works in."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from configs.errors import ChorusError, ConfigError
from trainer.analysis.bench.place import BenchPlace

TINY = 1_000


@pytest.fixture
def place(tmp_path: Path) -> BenchPlace:
    return BenchPlace(str(tmp_path / "bench"), say=lambda text: None)


def test_a_full_disk_is_told_before_anything_is_made(place: BenchPlace) -> None:
    place.need(1)
    with pytest.raises(ConfigError, match="GB free, this takes up to 1000000.0 GB"):
        place.need(10**15)


def test_a_log_its_packed_files_and_its_head_are_the_same_text(place: BenchPlace) -> None:
    log = place.log(rows=TINY, days=2)
    text = [Path(file).read_bytes() for file in log.files]
    assert log.num_rows == sum(one.count(b"\n") for one in text) == TINY
    assert log.num_bytes == sum(map(len, text))
    assert [gzip.decompress(Path(file).read_bytes()) for file in place.packed(log)] == text
    head = Path(place.head(log, rows=10)).read_bytes()
    assert head.count(b"\n") == 10
    assert text[0].startswith(head)


def test_a_program_that_fails_is_told(place: BenchPlace, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChorusError, match="tools/prepare_criteo.py: ended with code 2"):
        place.run("tools/prepare_criteo.py", "--input", place.path("none"), "--output", place.path("out"))
    assert "bench/none: " in capfd.readouterr().err
    with pytest.raises(ConfigError, match="no_such_limit: cannot be started"):
        place.run("tools/prepare_criteo.py", before=["no_such_limit"])


def test_a_limit_holds_the_program(place: BenchPlace) -> None:
    with pytest.raises(ChorusError, match="ended with code"):
        place.run("tools/report_data.py", "--help", before=["prlimit", "--data=20000000"])
    place.run("tools/report_data.py", "--help", before=["prlimit", "--data=2000000000"])


def test_memory_is_watched_where_asked(place: BenchPlace) -> None:
    assert place.run("tools/report_data.py", "--help").peak is None
    peak = place.run("tools/report_data.py", "--help", watched="").peak
    assert peak is not None and peak.anonymous_bytes > 1_000_000


def test_it_is_gone_in_the_end_unless_it_is_kept(place: BenchPlace) -> None:
    place.close(keep=True)
    assert os.path.isdir(place.folder)
    place.close(keep=False)
    assert not os.path.exists(place.folder)
