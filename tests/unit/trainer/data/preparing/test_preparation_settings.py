"""Preparation settings: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from configs.errors import DataError
from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import HASHED, MLPERF_RULE, settings_for
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.dictionary import IdRule
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.preparation_settings import PreparationSettings, VocabularyChoice, default_memory_gb
from trainer.data.preparing.splits import Split

DAYS = ["day_0", "day_1", "day_2"]
IN_TIME = Split(kind="time", names=("a", "b"), shares=("0.5", "0.5"))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"inputs": ()}, "inputs: none given; name at least one file"),
        ({"inputs": ("x", "x")}, "inputs: x is named twice; a row must not be in two places"),
        ({"output": "s3://bucket/data"}, "output: s3://bucket/data: rows are written in place, so it must be a local"),
        ({"max_bad_fraction": 1.5}, "max_bad_fraction: 1.5 must be from 0 to 1"),
        ({"max_bad_fraction": -0.1}, "max_bad_fraction: -0.1 must be from 0 to 1"),
        ({"max_bad_fraction": float("nan")}, "max_bad_fraction: nan must be from 0 to 1"),
        ({"num_workers": 0}, "workers: 0 must be at least 1"),
        ({"memory_gb": 0.1}, "memory_gb: 0.1 is too little; give at least "),
        ({"memory_gb": float("nan")}, "memory_gb: nan"),
        ({"shard": (3, 3)}, "shard: 3/3 is not one of 0/N to N-1/N"),
        ({"shard": (0, 0)}, "shard: 0/0 is not one of"),
        ({"keep_rows": False, "split": IN_TIME}, "reparse: which rows are counted must be known while they are read"),
        ({"vocabulary": lambda: VocabularyChoice(parts=("day_9",))}, "'day_9' is not a part; choose from day_0, day_1"),
        ({"vocabulary": lambda: VocabularyChoice(parts=())}, "vocabulary_from: nothing is not a part"),
        ({"vocabulary": lambda: VocabularyChoice(rule=IdRule(min_count=0))}, "min_count: 0 must be at least 1"),
        ({"vocabulary": lambda: VocabularyChoice(rule=IdRule(max_rows=3))}, "max_rows: 3 must be at least 4"),
        ({"vocabulary": lambda: VocabularyChoice(kind="hash", hash_rows=2)}, "hash_rows: 2 must be from 3 to"),
        (
            {"vocabulary": lambda: VocabularyChoice(kind="hash", hash_rows=2**31)},
            "hash_rows: 2147483648 must be from 3",
        ),
        (
            {"vocabulary": lambda: VocabularyChoice(kind="saved", saved="nowhere")},
            "dictionary: 'nowhere' is not a finished prepared folder; name one",
        ),
    ],
)
def test_refused(tmp_path, how, reason):
    with pytest.raises(DataError) as refusal:
        made: dict[str, Any] = {key: value() if callable(value) else value for key, value in how.items()}
        usual: dict[str, Any] = {
            "inputs": tuple(DAYS),
            "output": str(tmp_path),
            "input_format": CriteoFormat(),
            "split": Split.by_file(DAYS),
        }
        PreparationSettings(**{**usual, **made})
    assert reason in str(refusal.value)


def test_which_parts_are_counted():
    assert settings_for(DAYS, "x").counted == ("day_0", "day_1")
    assert settings_for(DAYS[:1], "x").counted == ("day_0",)
    assert settings_for(DAYS, "x", vocabulary=HASHED).counted == ()
    everything = VocabularyChoice(rule=MLPERF_RULE)
    halves = Split.last_in_halves(DAYS)
    assert settings_for(DAYS, "x", vocabulary=everything, split=halves).counted == halves.names
    chosen = VocabularyChoice(parts=("day_2", "day_0"))
    assert settings_for(DAYS, "x", vocabulary=chosen).counted == ("day_0", "day_2")


def test_a_saved_dictionary_must_fit(tmp_path):
    log = write_log(tmp_path / "day_0", synthetic_lines(5))
    prepare(settings_for([log], tmp_path / "old"))
    choice = VocabularyChoice(kind="saved", saved=str(tmp_path / "old"))
    for changed, reason in (
        (
            CriteoFormat(tokens="int"),
            "was prepared with input.tokens 'hex', not 'int'; prepare new rows as the old ones were",
        ),
        (CriteoFormat(numerics="both"), "was prepared with input.numerics 'dense', not 'both'"),
    ):
        with pytest.raises(DataError, match=reason):
            settings_for([log], tmp_path / "new", vocabulary=choice, input_format=changed)
    settings_for([log], tmp_path / "new", vocabulary=choice, input_format=CriteoFormat(has_labels=False))


def test_what_does_not_change_the_outcome_is_not_recorded():
    one = settings_for(DAYS, "x").provenance()
    machine = {"memory_gb": 7.0, "num_workers": 5, "keep_rows": False, "shard": (1, 3), "allow_damaged": True}
    assert settings_for(DAYS, "y", input_format=CriteoFormat(piece_bytes=9), **machine).provenance() == one
    for changed in (
        {"vocabulary": HASHED},
        {"vocabulary": VocabularyChoice(rule=IdRule(min_count=3))},
        {"vocabulary": VocabularyChoice(rule=IdRule(max_rows=9))},
        {"vocabulary": VocabularyChoice(parts=("day_0",))},
        {"split": IN_TIME},
        {"input_format": CriteoFormat(numerics="both")},
        {"bag_sizes": (2,) * 26},
        {"mlperf_float32": True},
    ):
        assert settings_for(DAYS, "x", **changed).provenance() != one


def test_processes_and_memory():
    for memory_gb in (1.0, 2.0, 8.0, 64.0):
        for wanted in (1, 4, 64):
            settings = settings_for(DAYS, "x", memory_gb=memory_gb, num_workers=wanted)
            assert 1 <= settings.workers_in_memory <= wanted
            assert settings.workers_in_memory * settings.merge_bytes <= max(memory_gb * 2**30, 33 << 20)
    assert settings_for(DAYS, "x", memory_gb=64, num_workers=16).workers_in_memory == 16
    assert settings_for(DAYS, "x", memory_gb=2, num_workers=16).workers_in_memory < 6
    assert 0 < default_memory_gb() <= 8
