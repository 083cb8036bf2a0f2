"""Splits: every row goes to exactly one part, in order, however the rows were cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from trainer.data.preparing.splits import BoundSplit, PieceRows, Split, part_name

PIECES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=12)


def pieces_of(given_pieces: list[tuple[int, int]]) -> list[PieceRows]:
    return [PieceRows(file=file, num_rows=rows) for file, rows in sorted(given_pieces, key=lambda pair: pair[0])]


def parts_of(split: Split, bound: BoundSplit, pieces: list[PieceRows]) -> list[list[int]]:
    """The rows of each part in their order there, by number over all; holes and doubles are refused."""
    places: list[dict[int, int]] = [{} for _ in split.names]
    for piece, cuts, first in zip(pieces, bound.cuts, bound.first_rows, strict=True):
        for cut in cuts:
            if cut.scattered:
                rows = [first + int(row) for row in np.flatnonzero(split.members(first, piece.num_rows) == cut.part)]
            else:
                rows = list(range(first + cut.start, first + cut.start + cut.num_rows))
                assert cut.start + cut.num_rows <= piece.num_rows
            assert len(rows) == cut.num_rows > 0
            for offset, row in enumerate(rows):
                assert places[cut.part].setdefault(cut.first_row + offset, row) == row, "two rows in one place"
    for part, found in enumerate(places):
        assert sorted(found) == list(range(bound.num_rows[part])), "a place without a row"
    return [[found[place] for place in sorted(found)] for found in places]


@given(PIECES)
def test_a_part_for_each_file(given_pieces):
    pieces = pieces_of(given_pieces)
    split = Split.by_file(["a.gz", "b.tsv", "c"])
    bound = split.bind(pieces)
    assert sum(parts_of(split, bound, pieces), []) == list(range(sum(piece.num_rows for piece in pieces)))
    assert bound.num_rows == tuple(sum(p.num_rows for p in pieces if p.file == file) for file in range(3))


@given(PIECES)
def test_the_last_file_in_halves_the_first_rounded_up(given_pieces):
    pieces = pieces_of(given_pieces)
    split = Split.last_in_halves(["day_0", "day_1.gz", "day_23"])
    assert split.names == ("day_0", "day_1", "day_23_val", "day_23_test")
    bound = split.bind(pieces)
    last = sum(piece.num_rows for piece in pieces if piece.file == 2)
    assert bound.num_rows[2:] == ((last + 1) // 2, last // 2)
    assert sum(parts_of(split, bound, pieces), []) == list(range(sum(piece.num_rows for piece in pieces)))


def test_halves_of_the_real_last_day():
    bound = Split.last_in_halves(["day_0", "day_23"]).bind(
        [PieceRows(file=0, num_rows=5), PieceRows(file=1, num_rows=178_274_637)]
    )
    assert bound.num_rows == (5, 89_137_319, 89_137_318)


@given(PIECES, st.sampled_from([("0.5", "0.25", "0.25"), ("0.29", "0.6", "0.11"), ("0.333", "0.333", "0.334")]))
def test_in_time_order(given_pieces, shares):
    pieces = pieces_of([*given_pieces, (0, 50)])
    split = Split(kind="time", names=("x", "y", "z"), shares=shares)
    bound = split.bind(pieces)
    total = sum(piece.num_rows for piece in pieces)
    assert sum(parts_of(split, bound, pieces), []) == list(range(total))
    thousandths = [int(round(float(share) * 1_000)) for share in shares]
    assert bound.num_rows[0] == thousandths[0] * total // 1_000
    assert sum(bound.num_rows[:2]) == sum(thousandths[:2]) * total // 1_000


def test_shares_are_decimals_not_floats():
    bound = Split(kind="time", names=("a", "b"), shares=("0.29", "0.71")).bind([PieceRows(file=0, num_rows=100)])
    assert bound.num_rows == (29, 71)  # int(0.29 * 100) is 28


@given(PIECES, st.integers(0, 2**40))
def test_at_random(given_pieces, seed):
    pieces = pieces_of([*given_pieces, (0, 60)])
    split = Split(kind="random", names=("x", "y"), shares=("0.6", "0.4"), seed=seed)
    found = parts_of(split, split.bind(pieces), pieces)
    total = sum(piece.num_rows for piece in pieces)
    assert sorted(sum(found, [])) == list(range(total)) and all(rows == sorted(rows) for rows in found)
    one = [PieceRows(file=0, num_rows=total)]
    assert parts_of(split, split.bind(one), one) == found, "the pieces must not matter"


def test_random_shares_and_seeds():
    drawn = {}
    for seed in (1, 2):
        split = Split(kind="random", names=("a", "b", "c"), shares=("0.7", "0.2", "0.1"), seed=seed)
        drawn[seed] = split.members(0, 200_000)
        shares = np.bincount(drawn[seed]) / 200_000
        np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.005)  # five standard deviations
        np.testing.assert_array_equal(split.members(150_000, 10), drawn[seed][150_000:150_010])
    assert 0.5 < (drawn[1] == drawn[2]).mean() < 0.58  # 0.54 by chance: the seeds are independent


def test_random_parts_are_pinned():
    """The same rows are held out next year."""
    split = Split(kind="random", names=("a", "b"), shares=("0.5", "0.5"), seed=1)
    assert split.members(0, 24).tolist() == [0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0]
    assert Split(kind="random", names=("a",), shares=("1",)).members(0, 3).tolist() == [0, 0, 0]


def test_by_a_column():
    split = Split(kind="column", names=("a", "b"))
    bound = split.bind(
        [PieceRows(file=0, num_rows=5, rows_by_part=(2, 3)), PieceRows(file=1, num_rows=2, rows_by_part=(0, 2))]
    )
    assert bound.num_rows == (2, 5)
    assert [[(cut.part, cut.first_row, cut.num_rows) for cut in cuts] for cuts in bound.cuts] == [
        [(0, 0, 2), (1, 0, 3)],
        [(1, 3, 2)],
    ]


def test_part_names():
    paths = ("a/day_0.tsv.gz", "day_1", "s3://b/x.txt", "t.gz")
    assert [part_name(path) for path in paths] == ["day_0", "day_1", "x", "t"]
    with pytest.raises(DataError, match="'a b' cannot name a part .*; rename the file or give a split"):
        part_name("x/a b.tsv")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Split.by_file(["x/day_0.tsv", "y/day_0.gz"]), "several files would make a part 'day_0'"),
        (lambda: Split(kind="time", names=("a", "b"), shares=("0.9", "0.2")), "the shares sum to 1.1, not 1"),
        (lambda: Split(kind="time", names=("a", "b"), shares=("1.5", "0.5")), "a=1.5 must be above 0 and at most 1"),
        (lambda: Split(kind="time", names=("a", "b"), shares=("1", "0")), "b=0 must be above 0"),
        (lambda: Split(kind="random", names=("a.b",), shares=("1",)), "'a.b' cannot name a part"),
        (
            lambda: Split(kind="time", names=("a", "b"), shares=("0.999", "0.001")).bind(
                [PieceRows(file=0, num_rows=1)]
            ),
            "part 'a' would have no row of 1; give it a larger share",
        ),
    ],
)
def test_refused(make, reason):
    with pytest.raises(DataError) as refusal:
        make()
    assert reason in str(refusal.value)
