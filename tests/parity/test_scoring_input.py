"""Raw logs prepared by rank 0 of two: the other waits for as long as it lasts, and hears of what goes wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import settings_for
from trainer import long_work
from trainer.data.manifest import DataManifest
from trainer.data.preparing import scoring_input
from trainer.data.preparing.preparation import prepare


def prepare_on_rank(runtime: Any, inputs: list[str], saved: str, folder: str) -> tuple[str, int]:
    """The prepared folder, and how often this rank beat."""
    long_work._PING_SECONDS = 0.0
    beats: list[str] = []
    beat, runtime.beat = runtime.beat, lambda doing: (beats.append(doing), beat(doing))
    config: Any = SimpleNamespace(
        score=SimpleNamespace(input=inputs, dictionary=saved, keep=()), data=SimpleNamespace(root="")
    )
    try:
        root = scoring_input.prepare_scoring_input(config, folder=folder, runtime=runtime)
    finally:
        runtime.beat = beat
    return root, len(beats)


@pytest.fixture
def saved(tmp_path) -> str:
    day = write_log(tmp_path / "day_0.tsv", synthetic_lines(50))
    prepare(settings_for([day], tmp_path / "saved"))
    return str(tmp_path / "saved")


def test_every_rank_gets_the_folder(ranks, tmp_path, saved):
    days = [write_log(tmp_path / f"day_{day}.tsv.gz", synthetic_lines(70, seed=day)) for day in (1, 2)]
    (root, beats), other = ranks(2).run(prepare_on_rank, days, saved, str(tmp_path / "out"))
    assert (root, beats) == other and beats > 3
    assert [part.num_rows for part in DataManifest.read(root).parts] == [70, 70]


def test_every_rank_hears_of_a_refusal_in_the_midst(ranks, tmp_path, saved):
    day = write_log(tmp_path / "day_1.tsv", [*synthetic_lines(70), "no row"])
    with pytest.raises(AssertionError) as told:
        ranks(2).run(prepare_on_rank, [day], saved, str(tmp_path / "out"))
    assert str(told.value).count("DataError: score.input: 1 of 71 lines are no rows") == 2
