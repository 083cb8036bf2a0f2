"""Every shipped outline loads, holds the published sizes, and expects as many distinct ids as were counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.loader import read_outline
from trainer.data.criteo import NUMERIC_ID_ROWS
from trainer.data.mlperf import MULTI_HOT_SIZES, TABLE_ROWS
from trainer.planning.distinct_ids import expected_distinct

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "outlines"
CRITEO = ("criteo_kaggle", "criteo_tb", "mlperf_dcnv2")
INVENTED = ("ads", "news", "shop")  # of the cases of configs/cases
PAPER = {"avazu": 24, "criteo_kaggle_ids": 39, "kdd12": 11}  # fields of the data of configs/paper
OUTLINES = {name: read_outline(str(FOLDER / f"{name}.toml")) for name in CRITEO}
# Distinct values of C1..C26 in the samples that the outlines name, missing ones left out.
TERABYTE_DISTINCT = (
    (20_566, 5_898, 7_830, 2_298, 5_480, 3, 4_595, 894, 23, 17_906, 8_098, 12_194, 9, 1_014, 3_036, 49, 4, 390, 14)
    + (22_091, 13_687, 19_549, 6_837, 5_485, 37, 32)
)  # fmt: skip
KAGGLE_DISTINCT = (
    (531, 517, 46_520, 25_372, 135, 12, 8_002, 251, 3, 12_016, 3_895, 42_646, 2_870, 26, 5_343, 35_530, 10, 2_626)
    + (1_250, 4, 39_736, 13, 14, 12_071, 52, 9_210)
)  # fmt: skip


def test_none_is_forgotten() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*CRITEO, *INVENTED, *PAPER}


def test_mlperfs_sizes() -> None:
    outline = OUTLINES["mlperf_dcnv2"]
    assert tuple(feature.rows for feature in outline.features.values()) == TABLE_ROWS
    assert tuple(feature.mean_ids for feature in outline.features.values()) == MULTI_HOT_SIZES
    assert round(sum(TABLE_ROWS) * 128 * 4 / 2**30, 2) == 97.36
    assert (outline.num_rows, outline.score_rows) == (4_195_197_692, 89_137_319)


def test_criteos_sizes() -> None:
    terabyte, kaggle = OUTLINES["criteo_tb"], OUTLINES["criteo_kaggle"]
    assert sum(feature.rows for feature in terabyte.features.values()) == 882_774_559
    assert terabyte.num_rows + terabyte.score_rows == 4_373_472_329
    assert kaggle.num_rows + 2 * kaggle.score_rows == 45_840_617  # 8 : 1 : 1
    capped = [min(feature.rows, 40_000_000) for feature in terabyte.features.values()]
    assert tuple(capped) == TABLE_ROWS


def test_the_papers_data() -> None:
    """Samples and ids as published: 8 : 1 : 1 of all rows; table rows of numbers and of missing values left out."""
    outlines = {name: read_outline(str(FOLDER / f"{name}.toml")) for name in PAPER}
    assert {name: len(outline.features) for name, outline in outlines.items()} == PAPER
    assert outlines["criteo_kaggle_ids"].num_rows == OUTLINES["criteo_kaggle"].num_rows
    assert abs(outlines["avazu"].num_rows - 0.8 * 40_428_967) < 1
    assert abs(outlines["kdd12"].num_rows - 0.8 * 149_639_105) < 1
    rows = {name: [feature.rows for feature in outline.features.values()] for name, outline in outlines.items()}
    assert sum(rows["criteo_kaggle_ids"][13:]) == 1_085_739 and set(rows["criteo_kaggle_ids"][:13]) == {NUMERIC_ID_ROWS}
    assert sum(rows["avazu"]) == 4_500_000
    assert 4.66e6 < sum(rows["kdd12"]) < 4.68e6


@pytest.mark.parametrize("outline", OUTLINES.values(), ids=OUTLINES)
def test_they_are_of_the_criteo_layout(outline) -> None:
    assert list(outline.features) == [f"C{place}" for place in range(1, 27)]
    assert (outline.dense, outline.stored_bytes) == (13, 4 * (13 + 26 + 1))


@pytest.mark.parametrize(
    ("name", "num_rows", "counted"),
    [("criteo_tb", 64_043, TERABYTE_DISTINCT), ("criteo_kaggle", 99_866, KAGGLE_DISTINCT)],
)
def test_as_many_distinct_ids_as_were_counted(name: str, num_rows: int, counted: tuple[int, ...]) -> None:
    for (feature, table), found in zip(OUTLINES[name].features.items(), counted, strict=True):
        expected = expected_distinct(table_rows=table.rows, num_ids=float(num_rows), zipf=table.zipf)
        assert expected == pytest.approx(found, rel=0.035, abs=0.6), feature


def test_bags_hold_as_many_distinct_ids_as_they_are_made_of() -> None:
    """A value's bag is itself and others drawn uniformly, always the same."""
    for (name, table), values in zip(OUTLINES["mlperf_dcnv2"].features.items(), TERABYTE_DISTINCT, strict=True):
        drawn = expected_distinct(table_rows=table.rows, num_ids=table.mean_ids * values, zipf=0.0)
        held = max(drawn, values) if table.mean_ids == 1 else drawn
        expected = expected_distinct(table_rows=table.rows, num_ids=table.mean_ids * 64_043, zipf=table.zipf)
        assert expected == pytest.approx(held, rel=0.06, abs=3), name
