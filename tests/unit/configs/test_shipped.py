"""Every shipped configuration loads, and the command in its header starts it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from configs.command import CONFIG, TRAIN, Command, parse_command
from configs.loader import config_text, dump_run, read_run, read_table_schema
from configs.training_schema import Schedule
from modules import members
from tools import prepare_table
from torchx_components.dist import ddp
from trainer.data.preparing.preparation_command import settings_of_flags

ROOT = Path(__file__).resolve().parents[3]
RUNS = sorted((ROOT / "configs" / "benchmarks" / "runs").glob("*.toml"))
SHIPPED = [*sorted((ROOT / "configs").glob("*.toml")), *RUNS]
TABLES = sorted((ROOT / "configs" / "tables").glob("*.toml"))


def test_none_is_forgotten():
    assert [path.stem for path in SHIPPED] == [
        "criteo_kaggle_sample",
        "criteo_tb",
        "demo",
        "mlperf_dcnv2",
        "table",
        "adult",
        "criteo-1tb-sample",
        "criteo-kaggle-0.3pct",
        "criteo-privacy-adkdd21",
        "frappe_x1-study",
        "frappe_x1",
        "movielens-tag-200k",
    ]
    assert [path.stem for path in TABLES] == [
        "adult",
        "adult_values",
        "avazu",
        "criteo_privacy_adkdd21",
        "frappe_x1",
        "kdd12",
        "ml_latest_small",
        "movielens_tag_200k",
    ]


def _read(text: str, *overrides: str):
    return read_run(
        text, source="run", overrides=overrides, resolve_arch=members.config_class, arch_kinds=members.kinds()
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_loads_and_survives_a_round_trip(path):
    config = _read(config_text(str(path)))
    assert config.run.name == re.sub("[-.]", "_", path.stem)
    assert _read(dump_run(config)) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_command_in_its_header_starts_it(path):
    command = _dry_run(_command(path, "torchx run .*trainer/main.py"))
    assert ROOT / (command.one(CONFIG.name) or "") == path
    _read(config_text(str(path)), *command.overrides)


def test_mlperfs_run_is_the_benchmarks():
    """MLCommons training, recommendation_v2: what the rules fix, and the reference's rates at this batch size."""
    run = _read(config_text(str(ROOT / "configs" / "mlperf_dcnv2.toml")))
    (member,) = run.members.values()
    tables = run.table_group(member.tables)
    assert run.train.batch_size == 65_536
    assert (tables.dim, tables.optimizer, tables.lr, tables.eps) == (128, "adagrad", 0.004, 1e-8)
    assert (run.dense.optimizer, run.dense.lr, run.dense.eps) == ("adagrad", 0.004, 1e-8)
    assert (run.train.schedule, run.train.until.epochs) == (Schedule(), 1)
    assert (run.train.watch.column, run.train.watch.metric, run.train.watch.target) == ("dlrm_dcn", "auc", 0.80275)
    assert run.data.train == tuple(f"day_{day}" for day in range(23)) and run.data.valid == ("day_23_val",)
    with torch.device("meta"):
        network = member.arch.build(num_dense=13, num_features=26, dim=tables.dim)
    assert sum(weight.numel() for weight in network.parameters()) == 16_044_545


def test_mlperfs_run_is_evaluated_twenty_times():
    run = _read(config_text(str(ROOT / "configs" / "mlperf_dcnv2.toml")))
    steps = -(-4_195_197_692 // run.train.batch_size)
    due = [step for step in range(1, steps + 1) if run.train.evaluate_every.due(step, steps_per_epoch=steps)]
    assert len(due) == 20
    assert all(abs(step - 3_200 * number) <= number for number, step in enumerate(due, 1))


def test_the_terabyte_log_is_prepared_as_its_run_reads_it():
    path = ROOT / "configs" / "criteo_tb.toml"
    run = _read(config_text(str(path)))
    words = _command(path, "python tools/prepare_criteo.py")
    assert words[words.index("--output") + 1] == run.data.root
    assert (*run.data.train, *run.data.valid) == tuple(f"day_{day}" for day in range(24))
    assert {member.tables for member in run.members.values()} == {"shared", "own"}
    planned = _command(path, "python tools/plan_capacity.py")
    assert planned[planned.index("--config") + 1] == f"configs/{path.name}"
    assert all((ROOT / planned[planned.index(flag) + 1]).is_file() for flag in ("--data", "--hardware"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_commands_in_a_schemas_header_prepare_it_and_train_on_it(path):
    read_table_schema(str(path))
    program, *words = _command(path, "python tools/prepare_table.py")[1:]
    prepared = prepare_table.parser().parse_args(words)
    assert (program, prepared.schema) == ("tools/prepare_table.py", f"configs/tables/{path.name}")
    settings = settings_of_flags(prepared)
    command = _dry_run(_command(path, "torchx run .*trainer/main.py"))
    run = _read(config_text(str(ROOT / command.one(CONFIG.name))), *command.overrides)
    assert run.data.root == prepared.output == f"data/{path.stem}"
    assert run.data.train
    assert {*run.data.train, *run.data.valid} <= set(settings["split"].names)  # a benchmark's run does not read `test`


def _command(path: Path, pattern: str) -> list[str]:
    """The words of the one line of a file's header that has such a command."""
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    (line,) = [line for line in header if re.match(rf"#\s+{pattern}", line)]
    return shlex.split(line.lstrip("# "))


def _dry_run(words: list[str]) -> Command:
    assert words[:5] == ["torchx", "run", "-s", "local_cwd", "dist.ddp"]
    assert words[5] == "-j"
    (role,) = ddp(*words[7:], j=words[6]).roles
    assert "torchrun" in role.args[1] and role.args[1].rstrip().endswith(" ".join(words[7:]))
    return parse_command(words[8:], program=TRAIN)
