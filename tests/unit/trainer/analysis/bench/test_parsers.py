"""The parsers that are compared, on lines with all that a log can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.errors import ChorusError
from trainer.analysis.bench import parsers as bench_parsers
from trainer.analysis.bench.parsers import Parsed, check_same, check_torchrec
from trainer.analysis.bench.torchrec_step import step_arrays, step_seconds


def line(label: int, numbers: list[str], values: list[str]) -> bytes:
    return "\t".join([str(label), *numbers, *values]).encode() + b"\n"


TEXT = (
    line(0, [str(n) for n in range(-3, 10)], [f"{n:08x}" for n in range(26)])
    + line(1, [""] * 13, [""] * 26)
    + line(0, ["2147483647", "0", "", *["7"] * 10], ["ffffffff", "0", "", "deadbeef", *["A"] * 22])
    + line(1, ["1"] * 13, ["80000000"] * 26)
)


@pytest.fixture
def wanted() -> Parsed:
    return bench_parsers.of_chorus(TEXT)


def test_what_ours_makes_of_it(wanted: Parsed) -> None:
    assert wanted.labels.tolist() == [0, 1, 0, 1]
    assert wanted.numbers[0].tolist() == [*range(-3, 10)]
    assert wanted.values[:4, 2].tolist() == [0xFFFFFFFF, 0, 0, 0xDEADBEEF]
    assert wanted.missing[:4, 2].tolist() == [False, False, True, False]
    assert wanted.missing[:, 1].all()


def test_all_make_the_same_of_it(wanted: Parsed, tmp_path: Path) -> None:
    log = tmp_path / "log.tsv"
    log.write_bytes(TEXT)
    check_same(bench_parsers.of_polars(TEXT), wanted, name="polars")
    check_same(bench_parsers.of_pyarrow(TEXT), wanted, name="pyarrow")


def test_duckdb_makes_the_same_of_it(wanted: Parsed, tmp_path: Path) -> None:
    pytest.importorskip("duckdb", reason="not installed: pip install duckdb")
    log = tmp_path / "log.tsv"
    log.write_bytes(TEXT)
    check_same(bench_parsers.of_duckdb(str(log)), wanted, name="duckdb")


def test_torchrec_makes_the_same_of_the_first_rows(tmp_path: Path) -> None:
    text = TEXT.replace(b"2147483647", b"2147483000")  # beyond it, its numbers overflow
    log = tmp_path / "log.tsv"
    log.write_bytes(b"".join(text.splitlines(keepends=True)[:3]))
    assert step_seconds(str(log), str(tmp_path)) > 0
    arrays = step_arrays(str(tmp_path))
    check_torchrec(arrays, bench_parsers.of_chorus(text))
    for place in range(3):
        changed = [array.copy() for array in arrays]
        changed[place][0, 0] += 1
        with pytest.raises(ChorusError, match="torchrec tsv_to_npys: its"):
            check_torchrec((changed[0], changed[1], changed[2]), bench_parsers.of_chorus(text))


@pytest.mark.parametrize("key", ["labels", "numbers", "values", "missing"])
def test_a_difference_is_found(key: str, wanted: Parsed) -> None:
    array = getattr(wanted, key).copy()
    array.flat[-1] = not array.flat[-1]
    for other in (array, np.asarray(getattr(wanted, key), np.float64)):
        changed = Parsed(**{**vars(wanted), key: other})
        with pytest.raises(ChorusError, match=f"polars: its {key} are not those of Chorus"):
            check_same(changed, wanted, name="polars")
