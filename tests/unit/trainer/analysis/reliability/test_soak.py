"""A soak refuses runs that it cannot follow, and folders of another soak."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from configs.errors import ConfigError
from tests.support.runs import SMALL_PATH
from trainer.analysis.reliability.soak import Soak, SoakSettings, soak_words


def _settings(folder: Path, *overrides: str, **more) -> SoakSettings:
    words = soak_words(str(SMALL_PATH), overrides)
    return SoakSettings(folder=str(folder), **({"kills": 3, "ranks": 2, "seed": 1, "words": words} | more))


def _soak(settings: SoakSettings) -> Soak:
    return Soak(settings, say=lambda _text: None)


def test_what_a_user_gives_replaces_what_a_soak_would_take():
    words = soak_words("x.toml", ["--train.until={steps = 9}", "--run.seed=4"])
    assert words[0] == "--config=x.toml"
    assert [word for word in words if word.startswith("--train.until")] == ["--train.until={steps = 9}"]
    assert words[-1] == "--run.seed=4"
    assert "--checkpoint.every={steps = 10}" in words


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("--checkpoint.every={seconds = 5}", "checkpoint.every: without a number of steps"),
        ("--train.log_every={steps = 5}", "train.log_every: a soak follows its jobs step by step"),
        ("--train.batch_sise=5", "did you mean 'batch_size'"),
    ],
)
def test_a_run_that_cannot_be_soaked_is_refused(tmp_path, override, told):
    with pytest.raises(ConfigError, match=told):
        _soak(_settings(tmp_path, override))
    assert not list(tmp_path.iterdir())


def test_a_folder_goes_on_with_the_same_settings_and_more_kills_alone(tmp_path):
    settings = _settings(tmp_path)
    _soak(settings)
    _soak(dataclasses.replace(settings, kills=30))
    for change in ({"seed": 2}, {"ranks": 1}, {"words": (*settings.words, "--run.seed=9")}):
        with pytest.raises(ConfigError, match="holds a soak with"):
            _soak(dataclasses.replace(settings, **change))
