"""The paper's runs: nine files, alike but for data and losses, each from a raw file of its layout to figures."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import random
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from configs.command import CONFIG, SCORE, TRAIN, parse_command
from configs.ensemble_schema import Loss
from configs.loader import config_text, dump_run, read_run
from configs.schema import RunConfig
from modules import members
from tests.support.click_log import synthetic_lines
from tools import merge_predictions, prepare_criteo, prepare_table
from torchx_components.dist import ddp
from trainer.data.manifest import DataManifest
from trainer.failures import guard
from trainer.main import main as train
from trainer.score import main as score

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "paper"
PATHS = sorted(FOLDER.glob("*.toml"))
FIELDS = {"avazu": 24, "criteo": 39, "kdd12": 11}
MODES = {
    "distilled": Loss(distillation=1.0, mutual=1.0),
    "independent": Loss(),
    "joint": Loss(merged_share=1.0),
}
MEMBERS = ["fnn", "ipnn", "deepfm", "dcn", "dcn_v2", "finalmlp", "wukong", "rankmixer"]
PREPARE = {"tools/prepare_criteo.py": prepare_criteo.main, "tools/prepare_table.py": prepare_table.main}
# Millions of parameters of the public code's models at their defaults and d = 16, counted from its equations. It has
# no tokens of 64 columns, so RankMixer is not among them; nor are weights per id, which lie in tables.
MILLIONS = {
    "avazu": (1.05, 1.33, 1.05, 1.05, 1.49, 2.17, 3.46),
    "criteo": (1.30, 2.06, 1.30, 1.30, 2.47, 2.66, 3.64),
    "kdd12": (0.84, 0.89, 0.84, 0.84, 0.93, 1.74, 3.29),
}
SHRUNK = [
    *(f"--members.{name}.arch.hidden=[8]" for name in ("fnn", "ipnn", "deepfm", "dcn", "dcn_v2")),
    "--members.finalmlp.arch.first_hidden=[8]",
    "--members.finalmlp.arch.second_hidden=[8]",
    "--members.wukong.arch.fm_hidden=[8]",
    *(f"--members.{name}.arch.top_hidden=[8]" for name in ("wukong", "rankmixer")),
    "--tables.own.dim=4",
    "--train.batch_size=32",
    "--train.until={steps = 2}",
]
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
each_data = pytest.mark.parametrize("data", FIELDS)


def _run(path: Path, *overrides: str) -> RunConfig:
    text = config_text(str(path))
    return read_run(
        text, source="run", overrides=overrides, resolve_arch=members.config_class, arch_kinds=members.kinds()
    )


def _commands(path: Path) -> dict[str, list[str]]:
    """The header's commands, by their program."""
    lines = [line for line in path.read_text().splitlines() if re.match(r"#   (python|torchx) ", line)]
    words = [shlex.split(line.lstrip("# ")) for line in lines]
    return {next(word for word in line if word.endswith(".py")): line for line in words}


def _with(words: Sequence[str], **changed: str) -> list[str]:
    """What follows the program, with other values of some flags."""
    start = next(place for place, word in enumerate(words) if word.endswith(".py"))
    words = list(words[start + 1 :])
    for flag, value in changed.items():
        words[words.index(f"--{flag}") + 1] = value
    return words


def test_none_is_forgotten() -> None:
    assert [path.stem for path in PATHS] == [f"{data}_{mode}" for data in FIELDS for mode in MODES]


@each_path
def test_it_loads_has_the_eight_members_and_survives_a_round_trip(path: Path) -> None:
    run = _run(path)
    assert run.run.name == path.stem and list(run.members) == MEMBERS
    assert {member.tables for member in run.members.values()} == {"own"}
    text = dump_run(run)
    assert read_run(text, source="", resolve_arch=members.config_class, arch_kinds=members.kinds()) == run


@each_data
def test_the_modes_of_a_data_set_differ_in_losses_alone(data: str) -> None:
    runs = {mode: _run(FOLDER / f"{data}_{mode}.toml") for mode in MODES}
    assert {mode: run.loss for mode, run in runs.items()} == MODES
    rest = [
        dataclasses.replace(run, run=dataclasses.replace(run.run, name="run"), loss=Loss()) for run in runs.values()
    ]
    assert rest[0] == rest[1] == rest[2]


def test_the_data_sets_have_the_same_architectures_and_the_rates_of_the_literature() -> None:
    runs = {data: _run(FOLDER / f"{data}_independent.toml") for data in FIELDS}
    archs = [{name: member.arch for name, member in run.members.items()} for run in runs.values()]
    assert archs[0] == archs[1] == archs[2]
    rates = {data: (run.dense.lr, run.dense.l2) for data, run in runs.items()}
    assert rates == {"criteo": (3e-4, 3e-6), "avazu": (3e-4, 3e-6), "kdd12": (3e-5, 1e-5)}
    assert all((run.table_group("own").lr, run.table_group("own").l2) == rates[data] for data, run in runs.items())
    decays = {data: {name: m.l2 for name, m in run.members.items() if m.l2 is not None} for data, run in runs.items()}
    assert decays == {"criteo": {"deepfm": 3e-5}, "avazu": {}, "kdd12": {}}


@each_data
def test_the_models_are_as_large_as_those_of_the_public_code(data: str) -> None:
    run = _run(FOLDER / f"{data}_independent.toml")
    shapes = {"num_dense": 0, "num_features": FIELDS[data], "dim": run.table_group("own").dim}
    with torch.device("meta"):
        networks = {name: member.arch.build(**shapes) for name, member in run.members.items()}
    sizes = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    assert tuple(sizes.pop(name) / 1e6 for name in MEMBERS[:-1]) == pytest.approx(MILLIONS[data], abs=0.0051)
    assert 1.4e6 < sizes["rankmixer"] < 1.7e6


@each_path
def test_the_commands_in_its_header_go_together(path: Path) -> None:
    commands, run = _commands(path), _run(path)
    assert list(commands)[1:] == ["trainer/main.py", "trainer/score.py", "tools/merge_predictions.py"]
    prepare = next(iter(commands.values()))
    assert prepare[prepare.index("--output") + 1] == run.data.root
    for program, command in (("trainer/main.py", TRAIN), ("trainer/score.py", SCORE)):
        words = commands[program]
        assert words[:7] == ["torchx", "run", "-s", "local_cwd", "dist.ddp", "-j", "1x1"]
        assert ddp(*words[7:], j=words[6]).roles
        parsed = parse_command(words[8:], program=command)
        changed = _run(path, *parsed.overrides)
        if command is TRAIN:
            assert (parsed.one(CONFIG.name), changed.run.folder) == (f"configs/paper/{path.name}", f"runs/{path.stem}")
        else:
            assert parsed.one("--checkpoint") == f"runs/{path.stem}/checkpoints/step_..."
            assert changed.score.parts == ("test",)
            assert parsed.one("--output") == commands["tools/merge_predictions.py"][-1]


def _avazu(num_rows: int) -> str:
    columns = "id click hour C1 banner_pos site_id site_domain site_category app_id app_domain app_category device_id"
    names = f"{columns} device_ip device_model device_type device_conn_type".split()
    names += [f"C{place}" for place in range(14, 22)]
    draw = random.Random(1)
    rows = [
        [str(place), str(draw.randint(0, 1)), f"1410{draw.randint(21, 30)}{draw.randint(0, 23):02d}"]
        + [str(draw.randint(0, 5)) for _ in names[3:]]
        for place in range(num_rows)
    ]
    return "".join(f"{','.join(row)}\n" for row in [names, *rows])


def _kdd12(num_rows: int) -> str:
    draw = random.Random(2)
    rows = [
        [str(max(draw.randint(-3, 2), 0)), str(draw.randint(1, 3)), str(2**63 + draw.randint(1, 4))]
        + [str(draw.randint(0, 4)) for _ in range(9)]
        for _ in range(num_rows)
    ]
    return "".join("\t".join(row) + "\n" for row in rows)


def _raw_file(data: str, folder: Path) -> Path:
    """A file in the layout that the header's command names, under the name there."""
    prepare = next(iter(_commands(FOLDER / f"{data}_joint.toml").values()))
    path = folder / prepare[prepare.index("--input") + 1]
    text = {
        "avazu": lambda: _avazu(200),
        "criteo": lambda: "".join(f"{line}\n" for line in synthetic_lines(200, seed=3)),
        "kdd12": lambda: _kdd12(200),
    }[data]()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def _prepared(data: str, raw: Path, folder: Path) -> Path:
    """What the header's command makes of a file."""
    program, words = next(iter(_commands(FOLDER / f"{data}_joint.toml").items()))
    root = folder / data
    assert PREPARE[program]([*_with(words, input=str(raw), output=str(root)), "--workers=1", "--memory-gb=1"]) == 0
    manifest = DataManifest.read(str(root))
    assert [part.name for part in manifest.parts] == ["train", "valid", "test"]
    assert len(manifest.id_features) == FIELDS[data] and not manifest.dense_features
    return root


def _trained(path: Path, root: Path, folder: Path, *overrides: str) -> dict[str, float]:
    """Log loss of each member and of the merged prediction on the validation part."""
    words = ["--config", str(path), f"--data.root={root}", f"--run.folder={folder}", *SHRUNK, *overrides]
    assert guard(train, words) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    figures = {key: value for line in lines for key, value in line.items() if key.startswith("eval/")}
    return {name: figures[f"eval/{name}/log_loss_nats"] for name in [*MEMBERS, "merged"]}


@pytest.mark.parametrize(("data", "mode"), [("avazu", "independent"), ("criteo", "distilled")])
def test_from_a_raw_file_to_figures(data: str, mode: str, tmp_path: Path) -> None:
    root = _prepared(data, _raw_file(data, tmp_path), tmp_path)
    losses = _trained(FOLDER / f"{data}_{mode}.toml", root, tmp_path / "run")
    assert all(math.isfinite(loss) for loss in losses.values())


def test_in_every_mode_from_a_raw_file_to_predictions_merged_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _prepared("kdd12", _raw_file("kdd12", tmp_path), tmp_path)
    losses = {mode: _trained(FOLDER / f"kdd12_{mode}.toml", root, tmp_path / mode) for mode in MODES}
    for name in MEMBERS:  # the same start and rows: only what members are trained for makes a difference
        assert len({figures[name] for figures in losses.values()}) == len(MODES), name
    (checkpoint,) = (tmp_path / "joint" / "checkpoints").iterdir()
    words = _commands(FOLDER / "kdd12_joint.toml")
    scored = _with(words["trainer/score.py"], checkpoint=str(checkpoint), output=str(tmp_path / "out"))
    assert guard(score, scored[scored.index("--checkpoint") :]) == 0
    compared = [*_with(words["tools/merge_predictions.py"])[:-1], str(tmp_path / "out")]
    assert merge_predictions.main([*compared, "--rules", "mean_logit"]) == 0
    assert "| mean_logit |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("data", "sample"),
    [("avazu", "avazu-head10k/train.part.csv.gz"), ("criteo", "criteo-kaggle-head10k/train_examples.tsv.gz")],
)
def test_real_rows(data: str, sample: str, real_data: Path, tmp_path: Path) -> None:
    raw = real_data / sample
    if not raw.is_file():
        pytest.skip(f"no {raw}")
    root = _prepared(data, raw, tmp_path)
    losses = _trained(FOLDER / f"{data}_distilled.toml", root, tmp_path / "run")
    assert all(math.isfinite(loss) for loss in losses.values())
