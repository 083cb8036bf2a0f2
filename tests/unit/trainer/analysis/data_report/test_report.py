"""The data report: every figure against a plain count, in any number of ranges, processes and blocks."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from tests.support.folders import write_folder
from trainer.analysis.data_report import blocks as data_report_blocks
from trainer.analysis.data_report import ids as data_report_ids
from trainer.analysis.data_report.blocks import PreparedBlocks, bands, stability_index
from trainer.analysis.data_report.ids import cut_ranges, id_figures, tally_ranges, zipf_exponent
from trainer.analysis.data_report.report import report
from trainer.data.manifest import DataManifest, FeatureSpec

FEATURES = (
    FeatureSpec(name="I1", kind="dense", file="dense", column=0),
    FeatureSpec(name="I2", kind="dense", file="dense", column=1),
    FeatureSpec(name="W", kind="weight", file="weights", column=0),
    FeatureSpec(name="small", kind="id", file="sparse", column=0, rows=12),
    FeatureSpec(name="large", kind="id", file="sparse", column=1, rows=5_000),
    FeatureSpec(name="tags", kind="bag", file="tags", column=0, rows=300),
    FeatureSpec(name="fixed", kind="bag", file="sparse", column=1, rows=5_000, bag_size=7),
)


def arrays(num_rows: int, seed: int, *, shift: float = 0.0, labelled: bool = True) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(0, 5, num_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    large = np.minimum(draw.zipf(1.3, num_rows) - 1 + int(shift * 1_000), 4_999)
    made = {
        "dense": (draw.normal(size=(num_rows, 2)) + shift).astype(np.float32),
        "sparse": np.stack([draw.integers(0, 12, num_rows), large], axis=1).astype(np.int32),
        "weights": np.ones((num_rows, 1), np.float32),
        "tags_values": draw.integers(0, 300, offsets[-1]).astype(np.int32),
        "tags_offsets": offsets,
        "labels": draw.integers(0, 2, (num_rows, 1)).astype(np.int32),
    }
    made["dense"][: num_rows // 4, 1] = 0.0
    if not labelled:
        del made["labels"]
    return made


PARTS = {
    "first": arrays(6_000, 1),
    "empty": arrays(0, 2),
    "second": arrays(4_000, 3, shift=0.5),
    "unlabelled": arrays(1_000, 4, labelled=False),
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    rows = {name: len(part["dense"]) for name, part in PARTS.items()}
    write_folder(tmp_path / "data", features=FEATURES, parts=PARTS, num_rows=rows)
    return str(tmp_path / "data")


def made(folder: str, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"reference": (), "memory_bytes": 1 << 30, "num_workers": 1, **more}
    return report(folder, **settings)


def by_name(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def ids_of(feature: str, part: str) -> np.ndarray:
    found = PARTS[part]
    if feature == "tags":
        return found["tags_values"]
    return found["sparse"][:, 0 if feature == "small" else 1]


def test_rows_and_labels(folder: str) -> None:
    figures = made(folder)
    assert figures["num_rows"] == 11_000 and figures["reference_parts"] == ["first"]
    assert [part["name"] for part in figures["parts"]] == list(PARTS)
    assert [part["num_rows"] for part in figures["parts"]] == [6_000, 0, 4_000, 1_000]
    first, empty, second, unlabelled = (part["label_rate"] for part in figures["parts"])
    assert empty is None and unlabelled is None
    assert first == PARTS["first"]["labels"].mean()
    assert figures["label_rate"] == pytest.approx((first * 6_000 + second * 4_000) / 10_000)
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize("name", ["small", "large", "tags"])
def test_figures_of_ids_are_plain_counts(name: str, folder: str) -> None:
    found = by_name(made(folder)["id_features"], name)
    everything = np.concatenate([ids_of(name, part) for part in PARTS])
    counts = Counter(everything[everything >= 2].tolist())
    assert found["num_ids"] == len(everything) and found["distinct"] == len(counts)
    falling = sorted(counts.values(), reverse=True)
    for top, share in found["top_shares"].items():
        assert share == pytest.approx(sum(falling[: int(top)]) / len(everything), abs=1e-12)
    assert list(found["top_shares"])[-1] == str(10 ** int(np.ceil(np.log10(len(counts)))))
    assert found["rare_share"] == pytest.approx((everything == 1).mean())
    seen = set(ids_of(name, "first").tolist())
    for part in ("second", "unlabelled"):
        of_part = by_name(found["parts"], part)
        unseen = [one not in seen for one in ids_of(name, part).tolist() if one >= 2]
        assert of_part["unseen_share"] == pytest.approx(sum(unseen) / len(ids_of(name, part)))
        assert of_part["rare_share"] == pytest.approx((ids_of(name, part) == 1).mean())
    assert by_name(found["parts"], "first")["unseen_share"] is None
    empty = by_name(found["parts"], "empty")
    assert empty == {**empty, "num_ids": 0, "missing_share": None, "rare_share": None, "unseen_share": None}


def test_missing_of_ids_and_of_bags(folder: str) -> None:
    figures = made(folder)
    small, tags = (by_name(figures["id_features"], name) for name in ("small", "tags"))
    zero = sum(int((ids_of("small", part) == 0).sum()) for part in PARTS)
    assert small["missing_share"] == pytest.approx(zero / 11_000)
    missing = lengths = 0
    for part in PARTS.values():
        offsets, values = part["tags_offsets"], part["tags_values"]
        for begin, end in zip(offsets, offsets[1:], strict=False):
            missing += begin == end or values[begin] == 0
            lengths += end - begin
    assert tags["missing_share"] == pytest.approx(missing / 11_000)
    assert tags["mean_bag_length"] == pytest.approx(lengths / 11_000)
    assert tags["bag_length_quantiles"] == {"0.5": 2, "0.95": 4, "1.0": 4}
    fixed, large = (by_name(figures["id_features"], name) for name in ("fixed", "large"))
    assert fixed["mean_bag_length"] == 7.0 and fixed["top_shares"] == large["top_shares"]
    assert large["mean_bag_length"] == 1.0


def test_drift_tells_a_shift_from_none(folder: str) -> None:
    figures = made(folder)
    for name in ("large", "I1"):
        entries = figures["id_features"] if name == "large" else figures["numeric_features"]
        found = by_name(entries, name)
        assert by_name(found["parts"], "second")["drift_psi"] > 0.2
        assert by_name(found["parts"], "unlabelled")["drift_psi"] < 0.03
        assert by_name(found["parts"], "first")["drift_psi"] is None
    small = by_name(figures["id_features"], "small")
    p, q = (np.bincount(ids_of("small", part), minlength=12) for part in ("first", "second"))
    p, q = p / p.sum(), q / q.sum()
    assert by_name(small["parts"], "second")["drift_psi"] == pytest.approx(((q - p) * np.log(q / p)).sum())


def test_quantiles(folder: str) -> None:
    figures = made(folder)
    for column, name in ((0, "I1"), (1, "I2")):
        for part in by_name(figures["numeric_features"], name)["parts"]:
            values = PARTS[part["name"]]["dense"][:, column]
            if part["name"] == "empty":
                assert part["quantiles"] == {} and part["mean"] is None
                continue
            for q, value in part["quantiles"].items():
                assert value == pytest.approx(np.quantile(values, float(q), method="inverted_cdf"), rel=0.0011, abs=0)
            assert part["mean"] == pytest.approx(values.mean(dtype=np.float64))
            assert part["zero_share"] == pytest.approx((values == 0).mean())
    assert by_name(figures["numeric_features"], "W")["kind"] == "weight"


def test_values_that_are_not_finite_are_counted_apart(tmp_path: Path) -> None:
    values = np.array([[np.nan], [np.inf], [-np.inf], [1.0], [-0.0], [-5.0]], np.float32)
    feature = FeatureSpec(name="I1", kind="dense", file="dense", column=0)
    write_folder(tmp_path, features=[feature], parts={"day": {"dense": values}}, num_rows={"day": 6})
    (part,) = made(str(tmp_path))["numeric_features"][0]["parts"]
    assert part["not_finite"] == 3 and part["mean"] == pytest.approx(-4 / 3)
    assert part["quantiles"]["0.01"] == pytest.approx(-5, rel=0.001) and part["quantiles"]["0.5"] == 0.0
    assert part["quantiles"]["0.99"] == pytest.approx(1, rel=0.001) and part["zero_share"] == pytest.approx(1 / 6)


def test_processes_ranges_and_blocks_change_nothing(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(folder)
    assert made(folder, num_workers=3) == one
    monkeypatch.setattr(data_report_blocks, "BLOCK_ROWS", 700)
    monkeypatch.setattr(data_report_ids, "_CHUNK", 333)
    monkeypatch.setattr(data_report_ids, "_SMALL_COUNT", 40)
    source = PreparedBlocks(root=folder, manifest=DataManifest.read(folder), reference=("first",))
    feature = next(feature for feature in FEATURES if feature.name == "large")
    for most_bytes, num_ranges in ((1 << 20, 1), (5_000, 5)):
        ranges = cut_ranges([feature], count_bytes=4, most_bytes=most_bytes)
        assert len(ranges) == num_ranges
        tallies = tally_ranges(source, ranges, count_bytes=4, told=lambda rows: None)
        figures, wanted = id_figures(tallies), by_name(one["id_features"], "large")
        assert (figures.num_ids, figures.distinct) == (wanted["num_ids"], wanted["distinct"])
        assert figures.top_shares == wanted["top_shares"] and figures.zipf_exponent == wanted["zipf_exponent"]
        unseen, index = data_report_ids.drift(tallies, "second")
        assert unseen == by_name(wanted["parts"], "second")["unseen_share"]
        assert index == pytest.approx(by_name(wanted["parts"], "second")["drift_psi"], rel=0.2)


def test_little_memory_takes_more_passes_and_gives_the_same(folder: str) -> None:
    whole, cut = (made(folder, memory_bytes=memory) for memory in (1 << 30, 9_000))
    for one, other in zip(whole["id_features"], cut["id_features"], strict=True):
        for key in ("num_ids", "distinct", "missing_share", "rare_share", "top_shares", "zipf_exponent"):
            assert one[key] == other[key]
        for part, same in zip(one["parts"], other["parts"], strict=True):
            assert part["unseen_share"] == same["unseen_share"]


def test_reference_parts_can_be_named(folder: str) -> None:
    figures = made(folder, reference=("second", "first"))
    assert figures["reference_parts"] == ["second", "first"]
    large = by_name(figures["id_features"], "large")
    assert by_name(large["parts"], "second")["unseen_share"] is None
    seen = set(ids_of("large", "first").tolist()) | set(ids_of("large", "second").tolist())
    unseen = np.mean([one not in seen for one in ids_of("large", "unlabelled").tolist()])
    assert by_name(large["parts"], "unlabelled")["unseen_share"] == pytest.approx(unseen)
    with pytest.raises(ConfigError, match="--reference: no part 'third'.*first, empty, second"):
        made(folder, reference=("third",))


@pytest.mark.parametrize("exponent", [0.7, 1.05, 1.4])
def test_the_exponent_of_a_power_law_is_found(exponent: float) -> None:
    ranks = np.arange(1, 100_001)
    expected = 3e6 * ranks**-exponent / (ranks**-exponent).sum()
    times = -np.sort(-np.random.default_rng(0).poisson(expected))
    times, num_ids = np.unique(times[times > 0], return_counts=True)
    found = zipf_exponent(times[::-1], np.cumsum(num_ids[::-1]))
    assert found == pytest.approx(exponent, abs=0.05)
    assert zipf_exponent(np.array([9, 5, 4]), np.array([2, 7, 900])) is None


def test_bands_are_about_equal_and_keep_the_order() -> None:
    mass = np.array([50.0, 1.0, 1.0, 8.0, 30.0, 10.0])
    assert bands(mass, 2).tolist() == [0, 1, 1, 1, 1, 1]
    assert bands(np.ones(100), 10).tolist() == sorted(list(range(10)) * 10)
    assert bands(np.zeros(3), 10).tolist() == [0, 0, 0]
    assert stability_index(np.array([1, 1]), np.array([0, 0])) is None
    assert stability_index(np.array([1, 1]), np.array([5, 5])) == 0.0


def test_no_rows_at_all(tmp_path: Path) -> None:
    write_folder(tmp_path, features=FEATURES, parts={"day": arrays(0, 1)}, num_rows={"day": 0})
    figures = made(str(tmp_path))
    assert figures["num_rows"] == 0 and figures["label_rate"] is None and figures["reference_parts"] == []
    large = by_name(figures["id_features"], "large")
    assert large["distinct"] == 0 and large["top_shares"] == {} and large["zipf_exponent"] is None


def test_one_row(tmp_path: Path) -> None:
    write_folder(tmp_path, features=FEATURES, parts={"day": arrays(1, 1)}, num_rows={"day": 1})
    assert made(str(tmp_path))["num_rows"] == 1


@pytest.mark.parametrize("wrong", [-1, 12, 40])
def test_an_id_beyond_its_table_is_refused(wrong: int, tmp_path: Path) -> None:
    part = arrays(100, 1)
    part["sparse"][77, 0] = wrong
    write_folder(tmp_path, features=FEATURES, parts={"day": part}, num_rows={"day": 100})
    with pytest.raises(DataError, match=rf"'day': small holds id {wrong}, its table has 12 rows"):
        made(str(tmp_path))


def test_damaged_files_are_named(folder: str) -> None:
    path = Path(folder) / "second_sparse.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="second_sparse.npy"):
        made(folder)
    path.unlink()
    with pytest.raises(DataError, match="second_sparse.npy"):
        made(folder)


def test_offsets_that_fall_are_refused(folder: str) -> None:
    path = Path(folder) / "second_tags_offsets.npy"
    offsets = np.load(path)
    offsets[10] = offsets[-1] + 5
    np.save(path, offsets)
    with pytest.raises(DataError, match="'second': the offsets of tags do not rise"):
        made(folder)


def test_a_part_without_a_feature_s_file(folder: str) -> None:
    manifest = DataManifest.read(folder)
    parts = [
        dataclasses.replace(part, files={role: file for role, file in part.files.items() if role != "weights"})
        for part in manifest.parts
    ]
    dataclasses.replace(manifest, parts=tuple(parts)).write(folder)
    with pytest.raises(DataError, match="no file 'weights'"):
        made(folder)
