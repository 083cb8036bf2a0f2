"""Bad input ends with one sentence on what is wrong and what to do, and the design's exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import run_torchrun
from tests.support.prepared import write_prepared
from tests.support.runs import SMALL_PATH
from trainer.failures import guard
from trainer.main import main
from trainer.score import main as score


@pytest.fixture
def refused(capfd):
    """Runs a program in this process and gives its exit code and the one sentence."""

    def run(program, *words: object) -> tuple[int, str]:
        code = guard(program, [str(word) for word in words])
        error = capfd.readouterr().err
        assert error.count("error: ") == 1, error
        assert "Traceback" not in error
        return code, error[error.index("error: ") :]

    return run


@pytest.fixture
def data(trained, tmp_path):
    """A copy of the prepared folder, to damage."""
    shutil.copytree(trained.data, tmp_path / "data")
    return tmp_path / "data"


def _train(data, tmp_path, *words: str) -> tuple[object, ...]:
    folder = f"--run.folder={tmp_path}/run"
    return (main, "--config", SMALL_PATH, folder, f"--data.root={data}", '--data.train=["day_0"]', *words)


def _score(trained, tmp_path, *words: str) -> tuple[object, ...]:
    return (score, "--checkpoint", trained.checkpoint, "--output", tmp_path / "out", *words)


def test_every_wrong_key_and_value_at_once(refused, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        '[train]\nbatch_sise = 3\n[tables.shared]\ndim = 6\noptimizer = "lion"\n'
        '[members.wide]\narch = { kind = "mpl" }\n[members.deep]\narch = { kind = "mlp", hiden = [3] }\n'
    )
    code, sentence = refused(main, "--config", config)
    assert code == 2
    assert "has 4 problems:" in sentence
    assert "members.wide.arch.kind: 'mpl' is not a member; choose one of " in sentence
    assert "members.deep.arch.hiden: no such key; did you mean 'hidden'?" in sentence
    assert "train.batch_sise: no such key; did you mean 'batch_size'?" in sentence
    # Rules of a section, as that dim is a multiple of 4, wait until its values are of the right kind.
    assert "tables.shared.optimizer: 'lion' is not one of rowwise_adagrad, adagrad, sgd, adam" in sentence


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--tables.shared.l2=0.1", 'tables.shared.l2: 0.1 needs placement = "data_parallel" for every table'),
        (
            "--tables.shared.clip_norm=10",
            'tables.shared.clip_norm: 10.0 needs placement = "data_parallel" for every table',
        ),
        ("--tables.shared.placement=grid", "tables.shared.placement: 'grid' under rowwise_adagrad keeps one sum per"),
        (
            "--tables.shared.features.C3.placement=grid",
            "tables.shared.features.C3.placement: 'grid' under rowwise_adagr",
        ),
        ("--tables.shared.kernel=uvm", "tables.shared: kernel 'uvm' of table shared/C1 is for GPU hosts"),
        (
            "--train.schedule.kind=cosine",
            "train.schedule.decay_steps: cosine needs the number of steps to fall over, or decay_epochs",
        ),
        ("--merge.rule=stacking", "merge.rule: 'stacking' has weights to fit: run tools/merge_predictions.py fit"),
        ("--members.deep.tables=others", "members.deep.tables: no [tables.others]"),
        ("--tables.shared.features.C99.placement=row_wise", "features.C99: the data have no such feature"),
        ("--run.device=cuda", "run.device: 'cuda', but no GPU is visible"),
    ],
)
def test_keys_that_cannot_be_served_are_refused(refused, tmp_path, word, sentence):
    if "cuda" in word and __import__("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    code, error = refused(main, "--config", SMALL_PATH, f"--run.folder={tmp_path}/run", word)
    assert code == 2
    assert sentence in error


def test_missing_config_data_part_and_file(refused, data, tmp_path):
    code, sentence = refused(main, "--config", tmp_path / "no.toml")
    assert (code, "no such file" in sentence) == (2, True)
    code, sentence = refused(*_train(tmp_path / "nowhere", tmp_path))
    assert code == 2 and "data.root: no folder" in sentence and "prepare" in sentence
    code, sentence = refused(*_train(data, tmp_path, '--data.valid=["day_9"]'))
    assert code == 2 and "no part 'day_9'" in sentence and "day_0, day_1, day_2" in sentence
    (data / "day_0_dense.npy").unlink()
    code, sentence = refused(*_train(data, tmp_path))
    assert code == 2 and "day_0_dense.npy: the manifest names this file" in sentence


def test_an_unfinished_or_truncated_folder(refused, data, tmp_path):
    whole = (data / "day_0_sparse.npy").read_bytes()
    (data / "day_0_sparse.npy").write_bytes(whole[:-100])
    code, sentence = refused(*_train(data, tmp_path))
    assert code == 2 and "day_0_sparse.npy: not a whole npy file" in sentence
    (data / "manifest.json").unlink()
    code, sentence = refused(*_train(data, tmp_path))
    assert code == 2 and "its preparation did not finish" in sentence


def test_evaluation_needs_rows_in_training_but_not_in_scoring(refused, trained, data, tmp_path):
    code, sentence = refused(*_train(data, tmp_path, "--train.evaluate_every={steps=2}"))
    assert code == 2 and "train.evaluate_every: there is no data.valid to evaluate on" in sentence
    words = ("--train.evaluate_every={steps=2}", "--data.valid=[]", '--score.parts=["day_2"]')
    program, *rest = _score(trained, tmp_path, *words)
    assert guard(program, [str(word) for word in rest]) == 0


def test_no_rows(refused, tmp_path):
    write_prepared(tmp_path / "empty", parts={"day_0": 0})
    code, sentence = refused(*_train(tmp_path / "empty", tmp_path))
    assert code == 2 and "hold no rows" in sentence


def test_one_row_is_enough(tmp_path):
    write_prepared(tmp_path / "one", parts={"day_0": 1})
    program, *words = _train(tmp_path / "one", tmp_path)
    assert guard(program, [str(word) for word in words]) == 0


@pytest.mark.parametrize("bad_id", [62, -1, 2**31 - 1])
def test_an_id_outside_its_table(refused, data, tmp_path, bad_id):
    sparse = np.load(data / "day_0_sparse.npy")
    sparse[123, 2] = bad_id
    np.save(data / "day_0_sparse.npy", sparse)
    code, sentence = refused(*_train(data, tmp_path, "--train.until={epochs=1}"))
    assert code == 2
    assert f"day_0_sparse.npy: feature C3, row 123: id {bad_id} is outside its table of 62 rows" in sentence


def test_a_rank_with_bad_data_ends_all_ranks_with_one_sentence(data, tmp_path):
    sparse = np.load(data / "day_0_sparse.npy")
    sparse[123, 2] = 62
    np.save(data / "day_0_sparse.npy", sparse)
    _, *words = _train(data, tmp_path, "--train.until={epochs=1}")
    done = run_torchrun("trainer/main.py", *map(str, words), ranks=2, timeout=60)
    assert done.returncode != 0
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1 and "feature C3, row 123" in sentences[0]
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["exit_code"] in (1, 2)


def test_data_of_other_table_sizes(refused, trained, tmp_path):
    write_prepared(tmp_path / "other", parts={"day_0": 50}, max_table_rows=40)
    code, sentence = refused(*_score(trained, tmp_path, f"--data.root={tmp_path}/other"))
    assert code == 2
    assert "was prepared with other table sizes" in sentence and " has 42 rows, not 62" in sentence


def test_data_of_another_dictionary(refused, trained, data, tmp_path):
    manifest = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps(manifest | {"dictionary_sha256": "another"}))
    code, sentence = refused(*_score(trained, tmp_path, f"--data.root={data}"))
    assert code == 2 and "another dictionary" in sentence


def test_a_checkpoint_of_other_members_or_tables(refused, trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    words = ("--train.until={steps=8}", "--members.deep.arch.hidden=[32]", "--tables.own.dim=8")
    code, sentence = refused(*_train(trained.data, tmp_path, *words))
    assert code == 2
    assert "is a checkpoint of another model" in sentence
    assert "members.deep: " in sentence and "tables.dot/C1: [" in sentence


def _flip_a_byte(checkpoint: Path) -> str:
    (file, *_) = sorted(checkpoint.glob("state/*.safetensors"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file.name


def test_a_damaged_checkpoint_is_named_and_an_older_one_is_taken(refused, trained, tmp_path, capfd):
    program, *words = _train(trained.data, tmp_path, "--checkpoint.every={steps=3}")
    words = [str(word) for word in words]
    assert guard(program, words) == 0
    older, newest = (tmp_path / "run" / "checkpoints" / f"step_000000000{step}" for step in (3, 6))
    name = _flip_a_byte(newest)
    code, sentence = refused(score, "--checkpoint", newest, "--output", tmp_path / "out")
    assert code == 2 and "is damaged" in sentence and name in sentence
    assert guard(program, words) == 0
    said = capfd.readouterr().out
    assert "passing over a checkpoint" in said and f"resuming from {older}" in said
    _flip_a_byte(older)
    _flip_a_byte(newest)
    code, sentence = refused(program, *words)
    assert code == 2 and "all 2 checkpoints are damaged" in sentence
    assert older.exists() and newest.exists()


def test_an_emptied_run_file_of_a_checkpoint(refused, trained, tmp_path):
    shutil.copytree(trained.checkpoint, tmp_path / "step_0000000006")
    (tmp_path / "step_0000000006" / "run.toml").write_text("")
    code, sentence = refused(score, "--checkpoint", tmp_path / "step_0000000006", "--output", tmp_path / "out")
    assert code == 2 and "run.toml is damaged" in sentence
    assert not (tmp_path / "out").exists()


def test_an_unfinished_checkpoint(refused, trained, tmp_path):
    shutil.copytree(trained.checkpoint, tmp_path / "step_0000000006")
    (tmp_path / "step_0000000006" / "manifest.json").unlink()
    code, sentence = refused(score, "--checkpoint", tmp_path / "step_0000000006", "--output", tmp_path / "out")
    assert code == 2 and "was not finished" in sentence
    code, sentence = refused(score, "--checkpoint", tmp_path / "nowhere", "--output", tmp_path / "out")
    assert code == 2 and "no checkpoint folder" in sentence
    code, sentence = refused(score, "--checkpoint", trained.folder / "checkpoints", "--output", tmp_path / "out")
    assert code == 2 and "it holds step_0000000006: give one of those" in sentence


def test_a_loss_that_is_not_finite_names_member_and_step(refused, tmp_path):
    words = ("--config", SMALL_PATH, f"--run.folder={tmp_path}/run", "--members.cross.lr=1e18")
    code, sentence = refused(main, *words, "--train.until={steps=50}")
    assert code == 1
    assert "member cross: loss is " in sentence and " at step " in sentence
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["error"] in sentence


def test_the_traceback_is_there_when_asked_for(tmp_path, capfd):
    code = guard(main, ["--config", str(tmp_path / "no.toml"), "--run.errors=traceback"])
    assert code == 2
    assert "Traceback" in capfd.readouterr().err
