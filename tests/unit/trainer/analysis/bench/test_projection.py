"""The projection's arithmetic, on numbers that can be worked out by head."""

from __future__ import annotations

import pytest

from trainer.analysis.bench.projection import Measured, arithmetic, projected_hours

MEASURED = Measured(
    seconds={"parse": 20.0, "dictionary": 6.0, "write": 16.0}, num_rows=1_000, num_values=100, num_cores=2
)


def hours(*, rows: int = 100_000, values: tuple[int, ...] = (100, 100, 100, 100), cores: int = 2) -> float:
    return projected_hours(MEASURED, num_rows=rows, values=values, num_cores=cores)


def test_as_many_rows_and_values_on_as_many_cores_take_as_long() -> None:
    assert hours(rows=1_000, values=(25, 25, 25, 25)) * 3600 == pytest.approx(42.0)


def test_stages_by_rows_grow_with_rows_and_shrink_with_cores() -> None:
    # 36 s x 100; dictionary: 6 s x 100, rows being the larger ratio.
    assert hours() * 3600 == pytest.approx(3_600 + 600)
    assert hours(cores=4) * 3600 == pytest.approx(1_800 + 300)


def test_values_count_where_they_grow_faster_than_rows() -> None:
    assert hours(values=(10_000,) * 4) * 3600 == pytest.approx(3_600 + 6 * 400)


def test_a_dictionary_ends_with_its_largest_feature() -> None:
    # 1,200 core-seconds, half of them in one feature: 600 s on any number of cores.
    assert hours(values=(200, 100, 100), cores=16) * 3600 == pytest.approx(3_600 * 2 / 16 + 600)


def test_the_lines_name_what_is_multiplied() -> None:
    text = "\n".join(arithmetic(MEASURED, num_rows=100_000, values=(200, 100, 100)))
    assert "parse 20.0 s, dictionary 6.0 s, write 16.0 s" in text
    assert "100,000 / 1,000 = 100.0 times" in text
    assert "400 / 100 = 4.0 times" in text
    assert "50% of the values" in text
