"""Range files: columns as promised, the record that proves them, and logits that are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from configs.errors import ChorusError
from modules.merge import MergeRule
from trainer import storage
from trainer.predictions.manifest import PredictionFile
from trainer.predictions.range_files import RangeFiles, RangeFormat, ScoredRange, read_record, record_path
from trainer.predictions.row_hash import hash_range
from trainer.predictions.row_ranges import RowRange

MEMBERS = ("deep", "solo", "wide")
ROWS = RowRange(part="day_1", first_row=10, num_rows=6, source_row=33)
PLAIN = RangeFormat(members=MEMBERS, merge=MergeRule.fixed("median", members=MEMBERS))


class Kept:
    """A source of columns that pass through."""

    def kept(self, names: Sequence[str], rows: range) -> Mapping[str, NDArray]:
        assert rows == range(33, 39)
        columns = {"C1": np.array(rows, dtype=np.int32), "who": np.array([f"ä{row}".encode() for row in rows])}
        return {name: columns[name] for name in names}


def scored(**changes: object) -> ScoredRange:
    draw = np.random.default_rng(3)
    return ScoredRange(
        **{  # type: ignore[arg-type]
            "rows": ROWS,
            "row_N": np.arange(10, 16),
            "labels_N": np.array([0, 1, 1, 0, 0, 1], dtype=np.float32),
            "logits_NM": torch.from_numpy(draw.normal(size=(6, 3)).astype(np.float32)),
            **changes,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unfinished").mkdir()
    return tmp_path


def write(folder: Path, one: ScoredRange, form: RangeFormat = PLAIN) -> tuple[PredictionFile, pa.Table]:
    file = RangeFiles(str(folder), form=form, source=Kept()).write(one)
    return file, pq.read_table(folder / file.path)


def test_a_file_holds_the_columns_and_its_record_proves_it(folder: Path) -> None:
    one = scored()
    file, table = write(folder, one)
    assert table.column_names == [
        "part",
        "row",
        "label",
        "logit_deep",
        "logit_solo",
        "logit_wide",
        "logit_merged",
        "merged",
    ]
    types = [str(table.schema.field(name).type) for name in ("row", "label", "logit_deep", "merged")]
    assert types == ["int64", "int8", "float", "float"] and str(table.schema.field("logit_merged").type) == "float"
    assert table.column("part").to_pylist() == ["day_1"] * 6
    assert table.column("row").to_pylist() == list(range(10, 16))
    assert table.column("label").to_pylist() == [0, 1, 1, 0, 0, 1]
    for index, name in enumerate(MEMBERS):
        assert table.column(f"logit_{name}").to_pylist() == one.logits_NM[:, index].tolist()
    median = torch.sigmoid(one.logits_NM.double().median(dim=1).values).float()
    assert table.column("merged").to_pylist() == median.tolist()
    assert table.column("logit_merged").to_pylist() == one.logits_NM.median(dim=1).values.tolist()
    assert file == PredictionFile(
        path="day_1-000000000010.parquet",
        part="day_1",
        first_row=10,
        num_rows=6,
        label_sum=3,
        row_hash=f"{hash_range('day_1', first_row=10, num_rows=6):016x}",
        num_bytes=(folder / file.path).stat().st_size,
        sha256=storage.sha256(str(folder / file.path)),
    )
    assert read_record(str(folder), ROWS) == file
    assert not list(folder.glob("*.tmp"))


def test_the_same_range_has_the_same_bytes(folder: Path) -> None:
    assert write(folder, scored())[0] == write(folder, scored())[0]


def test_rows_are_those_that_were_scored_not_those_that_were_meant(folder: Path) -> None:
    file, table = write(folder, scored(row_N=np.array([10, 11, 12, 12, 14, 15])))
    assert table.column("row").to_pylist() == [10, 11, 12, 12, 14, 15]
    assert file.row_hash != f"{hash_range('day_1', first_row=10, num_rows=6):016x}"


def test_rows_without_labels_have_none(folder: Path) -> None:
    labelled = write(folder, scored())[1]
    file, table = write(folder, scored(labels_N=np.full(6, np.nan, dtype=np.float32)))
    assert file.label_sum is None and table.column("label").to_pylist() == [None] * 6
    assert table.schema.field("label").type == labelled.schema.field("label").type


def test_what_may_be_asked_for(folder: Path) -> None:
    form = dataclasses.replace(PLAIN, dtype="float16", probabilities=True, keep=("who", "C1"))
    one = scored()
    _, table = write(folder, one, form)
    probabilities = [f"probability_{name}" for name in MEMBERS]
    logits = [f"logit_{name}" for name in MEMBERS]
    assert table.column_names == [
        "part",
        "row",
        "label",
        "who",
        "C1",
        *logits,
        *probabilities,
        "logit_merged",
        "merged",
    ]
    assert table.column("who").to_pylist() == [f"ä{row}" for row in range(33, 39)]
    assert table.column("C1").to_pylist() == list(range(33, 39)) and table.schema.field("C1").type == pa.int32()
    np.testing.assert_array_equal(table.column("logit_solo").to_numpy(), one.logits_NM[:, 1].half().numpy())
    wanted = torch.sigmoid(one.logits_NM[:, 1].double()).float()
    assert table.column("probability_solo").to_pylist() == wanted.tolist(), "of the logit before it was rounded"
    plain = write(folder, one)[1]
    assert table.column("logit_merged").equals(plain.column("logit_merged")), "float32, of logits before rounding"
    assert table.column("merged").equals(plain.column("merged"))


def test_a_rule_takes_the_members_that_it_names(folder: Path) -> None:
    rule = MergeRule.fixed("mean_logit", members=("wide", "deep"))
    one = scored()
    _, table = write(folder, one, dataclasses.replace(PLAIN, merge=rule))
    wanted = torch.sigmoid(one.logits_NM[:, [0, 2]].double().mean(dim=1)).float()
    np.testing.assert_allclose(table.column("merged").to_numpy(), wanted.numpy(), rtol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    one = scored()
    one.logits_NM[2, 1] = value
    one.logits_NM[4, 0] = value
    with pytest.raises(ChorusError) as refused:
        write(folder, one)
    assert str(refused.value) == (
        f"member solo: logit {value} at row 12 of day_1; the checkpoint's weights are not finite, take an earlier one"
    )
    assert not list(folder.glob("*.parquet"))


@pytest.mark.parametrize("value", [65_505.0, -65_519.0, 1e9])
def test_a_logit_beyond_float16_is_named(folder: Path, value: float) -> None:
    one = scored()
    one.logits_NM[5, 2] = value
    write(folder, one)
    with pytest.raises(ChorusError) as refused:
        write(folder, one, dataclasses.replace(PLAIN, dtype="float16"))
    assert str(refused.value) == (
        f"member wide: logit {value} at row 15 of day_1 is beyond float16, which ends at 65504; take score.dtype ="
        " 'float32'"
    )
    one.logits_NM[5, 2] = 65_504.0
    write(folder, one, dataclasses.replace(PLAIN, dtype="float16"))


@pytest.mark.parametrize("weight", [1e300, 1e38, -1e307])
def test_a_merged_logit_that_is_not_finite_is_the_rules(folder: Path, weight: float) -> None:
    rule = MergeRule(rule="stacking", members=("wide", "deep"), weights=(0.0, weight))
    one = scored()
    one.logits_NM[:, 0] = 0.5
    one.logits_NM[3, 0] = 1e2
    with pytest.raises(ChorusError) as refused:
        write(folder, one, dataclasses.replace(PLAIN, merge=rule))
    assert str(refused.value).startswith("merge rule stacking: merged logit ")
    assert f"at row {13 if weight == 1e38 else 10} of day_1, though its members' logits are finite" in str(
        refused.value
    )
    assert not list(folder.glob("*.parquet"))


def test_a_copy_from_a_gpu_is_waited_for(folder: Path) -> None:
    one = scored()
    late = one.logits_NM.clone()
    one.logits_NM.zero_()

    class Copied:
        def synchronize(self) -> None:
            one.logits_NM.copy_(late)

    _, table = write(folder, dataclasses.replace(one, copied=Copied()))
    assert table.column("logit_deep").to_pylist() == late[:, 0].tolist()


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"path": 1}', "gone", "other"])
def test_a_record_that_is_damaged_proves_nothing(folder: Path, damage: str) -> None:
    file, _ = write(folder, scored())
    path = Path(record_path(str(folder), ROWS))
    if damage == "gone":
        path.unlink()
    else:
        path.write_text(json.dumps({**dataclasses.asdict(file), "first_row": 0}) if damage == "other" else damage)
    assert read_record(str(folder), ROWS) is None
