"""Opening what a run names: the right sources, refused with a sentence, and never unchecked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import Data, Synthetic
from tests.unit.trainer.data.prepared import MIXED_FEATURES, folder_of, mixed_arrays, part_arrays, prepared_folder
from trainer.data.reading.opening import open_scoring_source, open_sources
from trainer.data.synthetic.stream import SyntheticSource

PARTS = {"day_0": part_arrays(7, seed=1), "day_1": part_arrays(0), "day_2": part_arrays(5, seed=2)}


@pytest.fixture
def root(tmp_path: Path) -> str:
    return prepared_folder(tmp_path / "data", PARTS)


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(DataError) as refused:
        make()
    return str(refused.value)


def test_without_a_folder_training_and_held_out_rows_follow_each_other() -> None:
    sources = open_sources(Data(synthetic=Synthetic(train_rows=30, valid_rows=12, max_table_rows=50)))
    assert isinstance(sources.train, SyntheticSource) and isinstance(sources.valid, SyntheticSource)
    assert sources.train.teacher_rows().tolist() == list(range(30))
    assert sources.valid.teacher_rows().tolist() == list(range(30, 42))
    assert sources.valid.features == sources.train.features
    scored = open_scoring_source(Data(synthetic=Synthetic(train_rows=30, valid_rows=12, max_table_rows=50)), parts=[])
    assert isinstance(scored, SyntheticSource)
    assert scored.teacher_rows().tolist() == list(range(30, 42))


def test_a_folders_parts_are_opened_as_named(root: str) -> None:
    sources = open_sources(Data(root=root, train=("day_2",), valid=("day_0", "day_1")))
    assert sources.train.num_rows == 5
    assert sources.valid is not None and sources.valid.num_rows == 7
    assert open_sources(Data(root=root, train=("day_2",))).valid is None


def test_training_needs_a_folder_and_its_parts(root: str) -> None:
    no_parts = "data.train: empty; name at least one part of data.root to train on"
    no_folder = "data.root: empty, but data.train or data.valid name parts; give the prepared folder"
    for data, sentence in (
        (Data(root=root), no_parts),
        (Data(root=root, valid=("day_0",)), no_parts),
        (Data(train=("day_0",)), no_folder),
        (Data(valid=("day_0",)), no_folder),
    ):
        with pytest.raises(ConfigError) as refused:
            open_sources(data)
        assert str(refused.value) == sentence


def test_a_folder_is_scored_although_nothing_was_trained_on_it(root: str) -> None:
    assert open_scoring_source(Data(root=root), parts=["day_2"]).num_rows == 5


def test_the_stream_has_no_parts_to_score() -> None:
    with pytest.raises(ConfigError) as refused:
        open_scoring_source(Data(), parts=["day_1", "day_2"])
    assert str(refused.value) == ("score.parts: the synthetic stream has no part 'day_1'; give data.root or no parts")


def test_parts_without_rows_are_refused(root: str) -> None:
    assert refusal(lambda: open_sources(Data(root=root, train=("day_1",)))) == (
        "data.train: its parts hold no rows; name parts that do"
    )
    assert refusal(lambda: open_sources(Data(root=root, train=("day_0",), valid=("day_1",)))) == (
        "data.valid: its parts hold no rows; name parts that do"
    )
    assert refusal(lambda: open_scoring_source(Data(root=root, train=("day_0",)), parts=["day_1"])) == (
        f"{root}: its parts day_1 hold no rows; name parts in score.parts that do"
    )


def test_scoring_takes_every_part_unless_some_are_named(root: str) -> None:
    data = Data(root=root, train=("day_0",))
    assert [part.name for part in open_scoring_source(data, parts=[]).parts] == ["day_0", "day_1", "day_2"]
    assert [part.name for part in open_scoring_source(data, parts=["day_2"]).parts] == ["day_2"]


def test_a_part_without_labels_is_scored_and_nothing_else(tmp_path: Path) -> None:
    parts = {"day_0": mixed_arrays(9, seed=1), "today": mixed_arrays(4, seed=2)}
    del parts["today"]["labels"]
    root = folder_of(tmp_path / "data", parts, features=MIXED_FEATURES)
    sentence = "part 'today' has no labels; it can be scored with score.parts, no more"
    assert refusal(lambda: open_sources(Data(root=root, train=("today",)))) == f"data.train: {sentence}"
    assert refusal(lambda: open_sources(Data(root=root, train=("day_0",), valid=("today",)))) == (
        f"data.valid: {sentence}"
    )
    source = open_scoring_source(Data(root=root), parts=[])
    assert [part.has_labels for part in source.parts] == [True, False]
    labels = source.read(range(7, 11)).labels
    assert labels[:2].tolist() == parts["day_0"]["labels"][7:, 0].tolist() and np.isnan(labels[2:]).all()


def test_what_is_opened_is_checked(root: str) -> None:
    path = Path(root) / "day_2_sparse.npy"
    ids = PARTS["day_2"].sparse.copy()
    ids[3, 1] = 100
    np.save(path, ids)
    sentence = (
        f"{path}: feature C2, row 3: id 100 is outside its table of 100 rows (ids run from 0 to 99);"
        " prepare the folder again"
    )
    for make in (
        lambda: open_sources(Data(root=root, train=("day_2",))),
        lambda: open_sources(Data(root=root, train=("day_0",), valid=("day_2",))),
        lambda: open_scoring_source(Data(root=root), parts=["day_2"]),
    ):
        assert refusal(make) == sentence
    open_sources(Data(root=root, train=("day_0",)))  # what is not opened is not looked at
