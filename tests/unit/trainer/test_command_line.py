"""From a program's words to a run: defaults, files, overrides, checkpoints."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from configs.command import SCORE, TRAIN, Command, parse_command
from configs.errors import CheckpointError, ConfigError
from configs.loader import dump_run
from trainer.checkpoints.manifest import CheckpointManifest, write_manifest
from trainer.command_line import output_folder, scored_runs, show_config, show_help, training_config

RUN = """
[train]
batch_size = 64
[members.solo]
arch = {kind = "mlp", hidden = [8]}
"""


def train(*words: str) -> Command:
    return parse_command(words, program=TRAIN)


def score(*words: str) -> Command:
    return parse_command(words, program=SCORE)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return str(path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    folder = tmp_path / "step_0000000007"
    folder.mkdir()
    (folder / "run.toml").write_text(RUN)
    proof = {"num_bytes": len(RUN), "sha256": hashlib.sha256(RUN.encode()).hexdigest()}
    write_manifest(
        CheckpointManifest(
            folder=str(folder),
            step=7,
            world_size=1,
            progress={},
            model={},
            data={},
            learning={},
            quality=None,
            column_pieces={},
            files={"run.toml": proof},
        )
    )
    return str(folder)


def test_without_words_the_demo_is_trained() -> None:
    config = training_config(train())
    assert config.data.root == ""
    assert len(config.members) > 1
    assert training_config(train("--train.batch_size=8")).train.batch_size == 8


def test_a_file_names_the_run_and_words_win_over_it(file: str) -> None:
    assert training_config(train("--config", file)).train.batch_size == 64
    config = training_config(train("--config", file, "--train.batch_size=128", "--members.solo.arch.hidden=[4, 2]"))
    assert config.train.batch_size == 128
    assert list(config.members) == ["solo"]
    assert config.members["solo"].arch.build(num_dense=1, num_features=1, dim=4).mlp.out_features == 1


def refusal(command: Command) -> str:
    with pytest.raises(ConfigError) as refused:
        training_config(command)
    return str(refused.value)


def test_a_refusal_names_its_source(file: str) -> None:
    assert "must be above zero" in refusal(train("--config", file, "--train.batch_size=0"))
    Path(file).write_text(RUN.replace("batch_size", "batch_sise"))
    sentence = refusal(train("--config", file))
    assert sentence.startswith(f"{file} has 1 problem:") and "did you mean 'batch_size'?" in sentence
    assert file + "x" in refusal(train("--config", file + "x"))


def test_an_unknown_member_is_refused_with_those_there_are() -> None:
    sentence = refusal(train('--members.x={arch = {kind = "mpl"}}'))
    assert "'mpl'" in sentence and "dcn, dcn_v2, deepfm, dlrm, dlrm_dcn" in sentence


@pytest.mark.parametrize("words", [(), ("--help",)])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_help_is_shown_by_rank_0_where_asked_for(
    words: Sequence[str], rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert show_help(train(*words), program=TRAIN) == bool(words)
    text = capsys.readouterr().out
    assert bool(text) == (bool(words) and rank == "0")
    if text:
        assert TRAIN.purpose.splitlines()[0] in text and "low_rank_dim" in text


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_config_that_is_printed_is_the_run(
    file: str, tmp_path: Path, rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    command = train("--config", file, "--print-config", "--train.batch_size=99")
    config = training_config(command)
    assert show_config(command, config)
    assert not show_config(train("--config", file), config)
    text = capsys.readouterr().out
    if rank == "1":
        assert text == ""
        return
    assert text == dump_run(config)
    assert tomllib.loads(text)["train"]["batch_size"] == 99
    printed = tmp_path / "printed.toml"
    printed.write_text(text)
    assert training_config(train("--config", str(printed))) == config


def test_a_checkpoints_run_is_scored_with_the_words_given(checkpoint: str) -> None:
    (run,) = scored_runs(score("--checkpoint", checkpoint, "--merge.rule=median"))
    config = run.config
    assert (run.label, run.folder, run.members) == ("", checkpoint, ("solo",))
    assert (config.train.batch_size, config.merge.rule) == (64, "median")
    assert list(config.members) == ["solo"]


def test_a_checkpoint_of_the_synthetic_stream_may_be_scored_on_a_folder(checkpoint: str) -> None:
    (run,) = scored_runs(score("--checkpoint", checkpoint, "--data.root=days"))
    config = run.config
    assert (config.data.root, config.data.train) == ("days", ())


def test_each_checkpoint_has_its_own_run_and_the_words_of_all(checkpoint: str) -> None:
    words = ("--checkpoint", f"a={checkpoint}", "--checkpoint", f"b_2={checkpoint}", "--merge.rule=median")
    runs = scored_runs(score(*words))
    assert [(run.label, run.folder, run.config.merge.rule) for run in runs] == [
        ("a", checkpoint, "median"),
        ("b_2", checkpoint, "median"),
    ]
    assert [run.members for run in runs] == [("a_solo",), ("b_2_solo",)]


def test_an_output_must_be_named() -> None:
    assert output_folder(score("--output", "out")) == "out"
    with pytest.raises(ConfigError, match="--output: not given; name a folder"):
        output_folder(score())


def test_keys_of_a_member_are_refused_with_their_path(file: str) -> None:
    words = ("--members.solo.arch.hidden=[8, 0]", "--members.solo.arch.dropout=1.0")
    assert refusal(train("--config", file, *words)) == (
        f"{file} with overrides has 2 problems:\n"
        "  members.solo.arch.hidden: 0 must be above zero\n"
        "  members.solo.arch.dropout: 1.0 is not in [0, 1)"
    )


def test_an_unfinished_checkpoint_is_refused_before_its_run_is_read(checkpoint: str) -> None:
    (Path(checkpoint) / "manifest.json").unlink()
    (Path(checkpoint) / "run.toml").write_text("half")
    with pytest.raises(CheckpointError, match="so it was not finished"):
        scored_runs(score("--checkpoint", checkpoint))
