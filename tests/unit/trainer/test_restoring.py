"""Restoring: what a run starts from, by name; nothing is dropped or overwritten without a word."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import CheckpointError, ChorusError, ConfigError, DataError
from tests.support.made_runs import FEATURES, MEMBERS, NEW, Runs
from trainer.restoring import LiveState
from trainer.runtime import Runtime

SAID = "its state starts anew"


@pytest.fixture
def runs(tmp_path: Path, runtime: Runtime) -> Runs:
    return Runs(tmp_path, runtime)


def values(state: LiveState) -> dict[str, float]:
    """Key -> its one value."""
    found = {}
    for key, value in state.tensors.items():
        assert isinstance(value, Tensor)
        (found[key],) = {float(x) for x in value.flatten()}
    return found


def taken(state: LiveState) -> set[str]:
    """The keys whose values are not the run's own; words that all have are left out."""
    long = ("ensemble.bank.members.", "ensemble.tables.embedding_bags.", ".layer.weight", ".weight")
    keys = {key for key, value in values(state).items() if value}
    for word in long:
        keys = {key.replace(word, "") for key in keys}
    return keys


def tables(*groups: str, what: str = "model/{}") -> set[str]:
    return {what.format(f"{group}/{feature}") for group in groups for feature in FEATURES.table_rows}


def test_nothing_there_is_a_new_run(runs: Runs) -> None:
    resumed, state = runs.start()
    assert resumed is None and not taken(state) and runs.said == []


def test_a_run_goes_on_with_all_of_its_state(runs: Runs) -> None:
    runs.save(run="a")
    resumed, state = runs.start(run="a")
    assert resumed is not None and resumed.step == 5
    assert set(values(state).values()) == {3.0}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (MEMBERS + NEW, "members.new: absent in the checkpoint"),
        (MEMBERS.partition("[members.solo]")[0], "members.solo: "),
        (MEMBERS.replace("[4]", "[5]"), "members.cross: "),
        (MEMBERS + "[tables.shared]\ndim = 8\n", "tables.shared/C1: [10, 16] in the checkpoint, [10, 8] in this run"),
    ],
)
def test_a_run_does_not_go_on_as_another(runs: Runs, text: str, problem: str) -> None:
    runs.save(run="a")
    sentence = runs.refused(lambda: runs.start(run="a", text=text))
    assert problem in sentence and "take what both have with checkpoint.start_from" in sentence


def test_left_over_tensors_are_refused(runs: Runs) -> None:
    folder = runs.save(
        run="a", extra={"optimizer/dense/x/step": torch.ones(1), "optimizer/dense/y/step": torch.ones(1)}
    )
    assert runs.refused(lambda: runs.start(run="a")) == (
        f"{folder}: optimizer/dense/x/step and 1 more tensors have no place in this run; keep the optimizers it was"
        " saved with, or start from it in another run.folder with checkpoint.start_from"
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 2}, "data.seed: 1 in "),
        ({"shuffle_window": 8}, "data.shuffle_window: 64 in "),
        ({"parts": [["day_0", 100]]}, "data.train: [['day_0', 100], ['day_1', 50]] in "),
    ],
)
def test_within_an_epoch_the_row_order_stays(runs: Runs, change: dict[str, Any], key: str) -> None:
    runs.save(run="a")
    sentence = runs.refused(lambda: runs.start(run="a", **change))
    assert sentence.startswith(key) and "within an epoch the row order must stay" in sentence
    runs.save(run="b", row=0)
    resumed, _ = runs.start(run="b", **change)
    assert resumed is not None


def test_another_dense_optimizer_does_not_go_on(runs: Runs) -> None:
    runs.save(run="a", row=0)
    sentence = runs.refused(lambda: runs.start("--dense.optimizer=sgd", run="a"))
    assert sentence.startswith("dense.optimizer: 'adam' for member deep in ")


def test_a_mean_of_checkpoints_is_started_from_and_not_gone_on_with(runs: Runs) -> None:
    folder = runs.save(run="a", averaged={"of": ["x", "y"]})
    assert "without optimizer state; go on from it in another run.folder" in runs.refused(lambda: runs.start(run="a"))
    _, state = runs.start(f"--checkpoint.start_from={folder}")
    assert {key for key in taken(state) if key.startswith("optimizer/")} == set()
    assert len(taken(state)) == 3 + 2 * 3
    assert runs.said[0] == f"{folder} is a mean of checkpoints and has no optimizer state: all of it starts anew"


def test_a_checkpoint_folder_is_gone_on_from_until_the_run_has_its_own(runs: Runs) -> None:
    folder = runs.save()
    resumed, state = runs.start(f"--checkpoint.resume={folder}")
    assert resumed is not None and resumed.folder == folder and set(values(state).values()) == {3.0}
    own = runs.save(run="new", fill=4.0)
    resumed, state = runs.start(f"--checkpoint.resume={folder}")
    assert resumed is not None and resumed.folder == own and set(values(state).values()) == {4.0}


def test_never_is_refused_over_checkpoints(runs: Runs) -> None:
    assert runs.start("--checkpoint.resume=never")[0] is None
    runs.save(run="new")
    sentence = runs.refused(lambda: runs.start("--checkpoint.resume=never", "--run.folder=runs/a"), ConfigError)
    assert sentence.startswith("run.folder: 'runs/a' holds checkpoints and checkpoint.resume is 'never'")


def test_a_run_that_has_checkpoints_looks_at_no_other(runs: Runs) -> None:
    runs.save(run="new", fill=4.0)
    words = ("--checkpoint.start_from=nowhere", "--members.deep.weights_from=nowhere", "--members.deep.freeze=true")
    _, state = runs.start(*words)
    assert set(values(state).values()) == {4.0}


def test_start_from_takes_members_and_tables_by_name(runs: Runs) -> None:
    folder = runs.save()
    resumed, state = runs.start(f"--checkpoint.start_from={folder}", text=MEMBERS + NEW)
    assert resumed is None
    old = {"deep", "cross", "solo"}
    groups = ("shared", "solo", "solo+first_order")
    assert taken(state) == {
        *(f"model/{name}" for name in old),
        *(f"optimizer/dense/{name}/exp_avg" for name in old),
        *tables(*groups),
        *tables(*groups, what="optimizer/tables/{}/sum"),
    }
    assert runs.said == [
        f"started from {folder} (step 5): members deep, cross, solo and 6 tables; new here: new",
    ]


def test_start_from_says_what_it_leaves(runs: Runs) -> None:
    folder = runs.save(text=MEMBERS + NEW)
    _, state = runs.start(f"--checkpoint.start_from={folder}", text=MEMBERS.partition("[members.cross]")[0])
    assert set(values(state).values()) == {3.0}
    assert runs.said == [f"started from {folder} (step 5): members deep and 2 tables; left there: cross, solo, new"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MEMBERS.replace("hidden = [3]", "hidden = [9]"), ("members.solo: ", "give the new one another name")),
        (MEMBERS.replace('"deepfm"', '"mlp"'), ("members.solo: ", "give the new one another name")),
        (
            MEMBERS.replace("[members.cross]\n", '[members.cross]\ntables = "own"\n'),
            ("members.cross: 'shared' in ", "'cross' in this run; keep it as it is there"),
        ),
        (
            MEMBERS + "[tables.shared]\ndim = 8\n",
            ("tables shared/C1: 10 x 8 in this run, 10 x 16 in ", "give them the same dim"),
        ),
    ],
)
def test_start_from_refuses_another_thing_under_the_same_name(runs: Runs, text: str, words: tuple[str, ...]) -> None:
    folder = runs.save()
    sentence = runs.refused(lambda: runs.start(f"--checkpoint.start_from={folder}", text=text))
    assert all(word in sentence for word in words) and folder in sentence


def test_start_from_wants_a_member_in_common(runs: Runs) -> None:
    folder = runs.save()
    assert runs.refused(lambda: runs.start(f"--checkpoint.start_from={folder}", text=NEW), ConfigError) == (
        f"checkpoint.start_from: {folder} has none of this run's members; it has deep, cross, solo"
    )


def test_data_of_another_dictionary_are_refused(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs.save()
    monkeypatch.setattr("tests.support.made_runs.FEATURES", dataclasses.replace(FEATURES, dictionary="d2"))
    for words in (f"--checkpoint.start_from={folder}", f"--members.deep.weights_from={folder}"):
        sentence = runs.refused(lambda words=words: runs.start(words), DataError)  # type: ignore[misc]
        assert "was prepared with another dictionary" in sentence


def test_state_of_another_optimizer_starts_anew_and_it_is_said(runs: Runs) -> None:
    folder = runs.save("--tables.shared.optimizer=adagrad")
    _, state = runs.start(f"--checkpoint.start_from={folder}", "--dense.optimizer=adagrad")
    anew = {key for key, value in values(state).items() if not value}
    assert anew == {key for key in state.tensors if key.startswith(("optimizer/dense/", "optimizer/tables/shared/"))}
    assert runs.said[:2] == [
        f"2 tables (shared/C1, shared/C2 ...) have another optimizer than in {folder}: {SAID}",
        f"members cross, deep, solo have another dense.optimizer than in {folder}: {SAID}",
    ]


def test_one_member_is_taken_with_its_tables_and_their_state(runs: Runs) -> None:
    folder = runs.save()
    _, state = runs.start(f"--members.solo.weights_from={folder}")
    assert taken(state) == {
        "model/solo",
        "optimizer/dense/solo/exp_avg",
        *tables("solo", "solo+first_order"),
        *tables("solo", "solo+first_order", what="optimizer/tables/{}/sum"),
    }
    assert runs.said == [f"members.solo: weights and 4 tables from {folder}#solo (step 5)"]


def test_one_member_is_taken_under_another_name(runs: Runs) -> None:
    folder = runs.save()
    _, state = runs.start(f"--members.new.weights_from={folder}#solo", text=MEMBERS + NEW)
    assert taken(state) == {
        "model/new",
        "optimizer/dense/new/exp_avg",
        *tables("new", "new+first_order"),
        *tables("new", "new+first_order", what="optimizer/tables/{}/sum"),
    }
    assert runs.said == [f"members.new: weights and 4 tables from {folder}#solo (step 5)"]


@pytest.mark.parametrize(
    ("wish", "kind", "sentence"),
    [
        (
            "members.solo.weights_from={folder}#none",
            ConfigError,
            "members.solo.weights_from: no member 'none' in {folder}, which has deep, cross, solo; write FOLDER#NAME",
        ),
        ("members.solo.weights_from={folder}#deep", ConfigError, "give them the same architecture"),
        ("members.solo.weights_from=nowhere#solo", CheckpointError, "no checkpoint folder 'nowhere'"),
        ("members.solo.weights_from={folder} --tables.own.dim=4", CheckpointError, "in this run, 10 x 16 in {folder}"),
    ],
)
def test_what_cannot_be_taken_is_refused(runs: Runs, wish: str, kind: type[ChorusError], sentence: str) -> None:
    folder = runs.save()
    words = f"--{wish.format(folder=folder)}".split()
    assert sentence.format(folder=folder) in runs.refused(lambda: runs.start(*words), kind)


def test_shared_tables_come_from_one_place(runs: Runs) -> None:
    one, other = runs.save(run="one"), runs.save(run="other", fill=4.0)
    _, state = runs.start(f"--members.deep.weights_from={one}", f"--members.cross.weights_from={one}#deep")
    assert set(values(state).values()) == {0.0, 3.0}
    for words in (
        (f"--members.deep.weights_from={one}", f"--members.cross.weights_from={other}"),
        (f"--checkpoint.start_from={one}", f"--members.cross.weights_from={other}"),
    ):
        sentence = runs.refused(lambda words=words: runs.start(*words), ConfigError)  # type: ignore[misc]
        assert sentence == (
            f"members.cross.weights_from: its tables.shared are shared and would replace those from {one}, group"
            ' shared; give it tables = "own", or take its weights from there'
        )
    _, state = runs.start(f"--checkpoint.start_from={one}", f"--members.solo.weights_from={other}")
    assert {key for key, value in values(state).items() if value == 4.0} == {
        key for key in state.tensors if "solo" in key
    }


def test_what_is_frozen_must_have_been_taken(runs: Runs) -> None:
    folder = runs.save()
    frozen = "--members.solo.freeze=true"
    assert runs.refused(lambda: runs.start(frozen), ConfigError) == (
        "members.solo.freeze: its weights would stay as they were drawn; give members.solo.weights_from or"
        " checkpoint.start_from"
    )
    runs.start(frozen, f"--members.solo.weights_from={folder}")
    runs.start(frozen, f"--checkpoint.start_from={folder}")
    sentence = runs.refused(
        lambda: runs.start("--members.new.freeze=true", f"--checkpoint.start_from={folder}", text=MEMBERS + NEW),
        ConfigError,
    )
    assert sentence.startswith("members.new.freeze: ")


def test_a_damaged_checkpoint_is_not_started_from(runs: Runs) -> None:
    folder = runs.save()
    path = Path(folder) / "state" / "rank_0_0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for words in (
        f"--checkpoint.start_from={folder}",
        f"--members.solo.weights_from={folder}",
        f"--checkpoint.resume={folder}",
    ):
        sentence = runs.refused(lambda words=words: runs.start(words))  # type: ignore[misc]
        assert sentence == f"{path} is damaged: its bytes are not those written; take another checkpoint"
