"""Assembly: members and tables made from names and seeds, whoever else is there."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from configs.command import TRAIN, parse_command
from configs.errors import CheckpointError, ConfigError
from configs.schema import RunConfig
from modules.seeding import derive_seed
from tests.support.prepared import write_prepared
from trainer import storage
from trainer.assembly import AssembledTraining, assemble_training
from trainer.built_task import BuiltTask, build_task
from trainer.command_line import training_config
from trainer.data.reading.source import SourceFeatures
from trainer.runtime import Runtime

FEATURES = SourceFeatures(dense_names=("I1", "I2"), table_rows={"C1": 100, "C2": 4, "C3": 25}, dictionary="d1")
SHARED = 'arch = {kind = "mlp", hidden = [8]}'
FM = 'arch = {kind = "deepfm", hidden = [8]}'
OWN = 'tables = "own"'


def config(tmp_path: Path, *lines: str, overrides: tuple[str, ...] = ()) -> RunConfig:
    path = tmp_path / "run.toml"
    path.write_text("\n".join(lines))
    return training_config(parse_command(["--config", str(path), *overrides], program=TRAIN))


def build(tmp_path: Path, *lines: str, overrides: tuple[str, ...] = ()) -> BuiltTask:
    return build_task(config(tmp_path, *lines, overrides=overrides), features=FEATURES)


def weights(built: BuiltTask, member: str) -> list[torch.Tensor]:
    return list(built.task.ensemble.bank.members[member].parameters())


def specs(built: BuiltTask, group: str) -> list[object]:
    return [spec for spec in built.specs if spec.group == group]


@pytest.mark.parametrize("tables", ["", OWN])
def test_a_member_is_the_same_whoever_else_is_there(tmp_path: Path, tables: str) -> None:
    deep = ("[members.deep]", SHARED, tables)
    alone = build(tmp_path, *deep)
    crowd = build(tmp_path, "[members.a]", SHARED, OWN, *deep, "[members.fm]", FM)
    assert all(torch.equal(x, y) for x, y in zip(weights(alone, "deep"), weights(crowd, "deep"), strict=True))
    group = "deep" if tables else "shared"
    assert specs(alone, group) == specs(crowd, group)
    assert not torch.equal(weights(crowd, "deep")[0], weights(crowd, "a")[0])


def test_copies_differ_and_seeds_rule(tmp_path: Path) -> None:
    copies = build(tmp_path, "[members.deep]", SHARED, OWN, "copies = 2")
    assert not torch.equal(weights(copies, "deep_1")[0], weights(copies, "deep_2")[0])
    assert {spec.seed for spec in copies.specs if spec.group == "deep_1"}.isdisjoint(
        spec.seed for spec in copies.specs if spec.group == "deep_2"
    )
    same = [build(tmp_path, f"[members.{name}]", SHARED, "seed = 5") for name in ("a", "b")]
    assert torch.equal(weights(same[0], "a")[0], weights(same[1], "b")[0])
    other_run = build(tmp_path, "[members.deep]", SHARED, overrides=("--run.seed=2",))
    assert not torch.equal(weights(other_run, "deep")[0], weights(build(tmp_path, "[members.deep]", SHARED), "deep")[0])


def test_seeds_are_derived_from_names(tmp_path: Path) -> None:
    built = build(tmp_path, "[members.deep]", SHARED, "[members.solo]", SHARED, OWN)
    seeds = {spec.name: spec.seed for spec in built.specs}
    group_seed = derive_seed(1, "group", "shared")
    assert seeds["shared/C2"] == derive_seed(group_seed, "table", "C2")
    assert seeds["solo/C2"] == derive_seed(derive_seed(1, "member", "solo"), "table", "C2")
    assert len(set(seeds.values())) == len(seeds)


def test_a_given_seed_is_mixed_with_the_groups_name(tmp_path: Path) -> None:
    lines = ("[members.dot]", SHARED, OWN, "[members.deep]", SHARED)
    words = ("--tables.own.seed=5", "--members.dot.copies=2")
    built = build(tmp_path, *lines, overrides=words)
    seeds = {spec.name: spec.seed for spec in built.specs}
    assert len(set(seeds.values())) == len(seeds) == 9
    for group in ("dot_1", "dot_2"):
        assert seeds[f"{group}/C2"] == derive_seed(derive_seed(5, "group", group), "table", "C2")
    # What was given is all that counts: neither the run's seed nor the member's moves the tables.
    other_run = build(tmp_path, *lines, overrides=(*words, "--run.seed=2"))
    assert specs(other_run, "dot_1") == specs(built, "dot_1")
    assert specs(other_run, "shared") != specs(built, "shared")
    one = [
        build(tmp_path, *lines, overrides=("--tables.own.seed=5", *more)) for more in ((), ("--members.dot.seed=9",))
    ]
    assert specs(one[0], "dot") == specs(one[1], "dot")
    assert not torch.equal(weights(one[0], "dot")[0], weights(one[1], "dot")[0])
    other_seed = build(tmp_path, *lines, overrides=("--tables.own.seed=6",))
    assert specs(other_seed, "dot") != specs(one[0], "dot")


def test_tables_follow_their_group(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        "[tables.shared]",
        'dim = 8\nlr = 0.5\nfeatures.C2.placement = "row_wise"\nplacement = "table_wise"',
        "[tables.own]",
        'dim = 12\ninit_bound = 0.25\noptimizer = "sgd"',
        "[members.deep]",
        SHARED,
        "[members.solo]",
        SHARED,
        OWN,
        "[members.wide]",
        SHARED,
        OWN,
        "dim = 4",
    )
    by_name = {spec.name: spec for spec in built.specs}
    groups = ("shared", "solo", "wide")
    assert list(by_name) == [f"{group}/{feature}" for group in groups for feature in FEATURES.table_rows]
    assert [by_name[f"{group}/C1"].dim for group in groups] == [8, 12, 4]
    assert [by_name[f"shared/{feature}"].placement for feature in FEATURES.table_rows] == [
        "table_wise",
        "row_wise",
        "table_wise",
    ]
    # Not given: 1/sqrt(rows).
    assert [by_name[f"shared/{feature}"].init_bound for feature in FEATURES.table_rows] == [0.1, 0.5, 0.2]
    assert by_name["wide/C1"].init_bound == 0.25
    assert (by_name["shared/C3"].lr, by_name["solo/C3"].optimizer) == (0.5, "sgd")


def test_first_order_tables_are_there_where_a_member_asks(tmp_path: Path) -> None:
    without = build(tmp_path, "[members.deep]", SHARED)
    assert {spec.group for spec in without.specs} == {"shared"}
    both = build(tmp_path, "[members.deep]", SHARED, "[members.fm]", FM, "[members.fm_2]", FM)
    assert [spec.group for spec in both.specs] == ["shared"] * 3 + ["shared+first_order"] * 3
    assert {spec.init_bound for spec in specs(both, "shared+first_order")} == {0.0}  # type: ignore[attr-defined]


def test_tables_wait_on_the_meta_device(tmp_path: Path) -> None:
    task = build(tmp_path, "[members.deep]", SHARED).task
    assert {p.device.type for p in task.ensemble.tables.parameters()} == {"meta"}
    assert {p.device.type for p in task.ensemble.bank.parameters()} == {"cpu"}


def test_the_facts_tell_models_apart(tmp_path: Path) -> None:
    facts = build(tmp_path, "[members.deep]", SHARED).facts
    assert facts.tables == {"shared/C1": (100, 16), "shared/C2": (4, 16), "shared/C3": (25, 16)}
    assert facts.features == FEATURES
    wider = build(tmp_path, "[members.deep]", SHARED.replace("8", "9")).facts
    assert wider.members != facts.members
    assert dataclasses.replace(wider, members=facts.members) == facts
    own = build(tmp_path, "[members.deep]", SHARED, OWN).facts
    assert (own.groups, facts.groups) == ({"deep": "deep"}, {"deep": "shared"})


def test_a_placement_of_a_feature_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        build(tmp_path, "[tables.shared]", 'features.C9.placement = "row_wise"', "[members.deep]", SHARED)
    assert str(refused.value) == "tables.shared.features.C9: the data have no such feature; they have C1, C2, C3"


@pytest.mark.parametrize(("group", "tables"), [("own", OWN), ("wide", 'tables = "wide"')])
def test_the_group_of_a_placement_is_named(tmp_path: Path, group: str, tables: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(tmp_path, f"[tables.{group}]", 'features.C9.placement = "row_wise"', "[members.deep]", SHARED, tables)
    assert str(refused.value) == f"tables.{group}.features.C9: the data have no such feature; they have C1, C2, C3"


def small(tmp_path: Path, *overrides: str) -> RunConfig:
    stream = "[data.synthetic]\ntrain_rows = 64\nvalid_rows = 16\nmax_table_rows = 20"
    lines = (stream, "[tables.shared]", "dim = 4", "[members.deep]", SHARED)
    return config(tmp_path, *lines, overrides=("--train.batch_size=16", *overrides))


def save(assembled: AssembledTraining) -> str:
    """Leaves a checkpoint as of now; gives its folder."""
    checkpoints, progress = assembled.training.checkpoints, assembled.training.progress
    progress.step += 1
    checkpoints.save(assembled.training.snapshot(None))
    checkpoints.wait()
    return storage.join(checkpoints.folder, f"step_{progress.step:010d}")


def test_the_plan_has_its_report(tmp_path: Path, runtime: Runtime) -> None:
    made = small(tmp_path)
    assembled = assemble_training(made, folder=str(tmp_path / "run"), runtime=runtime)
    assert assembled.plan["report"] == assembled.report.as_json()
    rows = sum(assembled.sources.train.features.table_rows.values())
    assert assembled.report.bytes_per_rank["table_weights"] == (rows * 4 * 4,)
    folder = Path(save(assembled))
    assert json.loads((folder / "plan.json").read_text()) == json.loads(json.dumps(assembled.plan))


def test_a_named_checkpoint_begins_a_run_and_the_runs_own_go_on(tmp_path: Path, runtime: Runtime) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    begun = assemble_training(small(tmp_path), folder=first, runtime=runtime)
    assert begun.resumed_from is None
    named = save(begun)
    resumed = small(tmp_path, f"--checkpoint.resume={named}")
    for _ in range(2):  # until there is a whole checkpoint of its own
        taken = assemble_training(resumed, folder=second, runtime=runtime)
        assert taken.resumed_from == named
    own = save(taken)
    assert own != named
    assert assemble_training(resumed, folder=second, runtime=runtime).resumed_from == own
    (Path(own) / "manifest.json").unlink()
    assert assemble_training(resumed, folder=second, runtime=runtime).resumed_from == named


def test_another_dense_optimizer_is_refused_by_name(tmp_path: Path, runtime: Runtime) -> None:
    folder = str(tmp_path / "run")
    saved = save(assemble_training(small(tmp_path), folder=folder, runtime=runtime))
    with pytest.raises(CheckpointError) as refused:
        assemble_training(small(tmp_path, "--dense.optimizer=sgd"), folder=folder, runtime=runtime)
    assert str(refused.value) == (
        f"dense.optimizer: 'adam' for member deep in {saved}, 'sgd' in this run; the state of one is of no use to the"
        " other: keep the old value, or start in another run.folder"
    )


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("train.evaluate_every", ("--train.evaluate_every.steps=4",)),
        ("train.evaluate_every", ("--train.evaluate_every.epochs=0.5",)),
        ("train.watch.target", ("--train.watch.target=0.5",)),
        ("checkpoint.keep_best", ("--checkpoint.keep_best=1",)),
    ],
)
def test_what_asks_for_evaluations_needs_rows_for_them(
    tmp_path: Path, runtime: Runtime, key: str, words: tuple[str, ...]
) -> None:
    write_prepared(tmp_path / "data", parts={"day_0": 20})
    root = (f"--data.root={tmp_path}/data", '--data.train=["day_0"]')
    with pytest.raises(ConfigError) as refused:
        assemble_training(small(tmp_path, *root, *words), folder=str(tmp_path / "run"), runtime=runtime)
    assert str(refused.value) == f"{key}: there is no data.valid to evaluate on; name its parts"


def test_batch_norm_needs_two_rows_a_rank(tmp_path: Path, runtime: Runtime) -> None:
    words = ("--train.batch_size=1", "--members.deep.arch={kind='mlp',batch_norm=true}")
    with pytest.raises(ConfigError, match=r"train.batch_size: a rank gets one row a step, and member deep"):
        assemble_training(small(tmp_path, *words), folder=str(tmp_path / "run"), runtime=runtime)


def test_a_trained_member_on_frozen_tables_may_stop_and_only_its_own_weights_are_kept(
    tmp_path: Path, runtime: Runtime
) -> None:
    saved = save(assemble_training(small(tmp_path), folder=str(tmp_path / "old"), runtime=runtime))
    words = (
        "--data.valid=[]",
        "--train.evaluate_every={steps=2}",
        "--train.early_stop={evaluations=1, columns={shared='top'}}",
        "--members.deep.freeze=true",
        f"--members.deep.weights_from={saved}",
        "--members.top.arch={kind='mlp',hidden=[3]}",
    )
    assembled = assemble_training(small(tmp_path, *words), folder=str(tmp_path / "new"), runtime=runtime)
    stop = assembled.training.early_stop
    assert stop.is_on and list(stop.state()["groups"]) == ["shared"]
    assert all(key.startswith("best/model/ensemble.bank.members.top.") for key in stop.state_tensors())
    assert len(stop.state_tensors()) == 4
    held = assembled.report.bytes_per_rank
    assert held["best_weights"] == tuple(
        a + b for a, b in zip(held["table_weights"], held["dense_weights"], strict=True)
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--train.early_stop={metric='ne'}",), "metric: nothing stops; give evaluations"),
        (("--train.schedule.plateau_of=early_stop",), "plateau_of: kind is 'constant', which listens to no figure"),
        (("--loss.mutual=1",), "loss: a single member has nobody to be tied to"),
        (("--members.deep.feature_dropout=0.1", "--members.deep.freeze=true"), "feature_dropout: the member is frozen"),
        (("--members.deep.bagging=poisson", "--train.day_by_day=true"), "numbers every day's rows alike"),
        (("--tables.shared.optimizer=dense_adam",), "optimizer: 'dense_adam' needs placement = \"data_parallel\""),
        (("--members.deep={tables='own',l2=0.1,arch={kind='mlp'}}",), "l2: 0.1 needs every row of the table"),
    ],
)
def test_keys_that_mean_nothing_together_are_refused(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        small(tmp_path, *words)


def test_a_dim_for_a_member_without_embeddings_is_refused(tmp_path: Path) -> None:
    words = ("--members.deep={tables='own',dim=8,arch={kind='lr'}}",)
    with pytest.raises(ConfigError, match="members.deep.dim: lr reads weights per id and no embeddings"):
        build_task(small(tmp_path, *words), features=FEATURES)
