"""Averaging: the formulas, in float64, of one model only; integers are no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from configs.errors import CheckpointError, ChorusError
from tests.support.stored_checkpoints import DENSE, TABLE, model_facts, quiet, state, store
from trainer.checkpoints import state_files
from trainer.checkpoints.averaging import RULES, Average, coefficients, write_average
from trainer.checkpoints.manifest import read_manifest
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.checkpoints.verification import verify_checkpoint

KEY = TABLE.format("shared/C1")


def stored(folder: Path, count: int = 3) -> list[str]:
    """Checkpoints of steps 1, 2 ..., cut differently."""
    cuts = [(1, 1), (3, 1), (2, 4)]
    return [str(store(folder / f"{n}", state(n), step=n + 1, pieces=cuts[n % 3])) for n in range(count)]


def whole(folder: Path | str) -> dict[str, Tensor]:
    checkpoint = StoredCheckpoint.open(str(folder))
    blocks = {key: list(checkpoint.blocks(key)) for key in checkpoint.index}
    return {key: torch.cat(found) if found[0].dim() else found[0] for key, found in blocks.items()}


def test_shares() -> None:
    assert coefficients("sma", 4) == (0.25, 0.25, 0.25, 0.25)
    assert coefficients("wma", 4) == (0.1, 0.2, 0.3, 0.4)
    assert coefficients("ema", 3, decay=0.8) == pytest.approx((0.64, 0.16, 0.2))
    for rule in RULES:
        shares = coefficients(rule, 7, decay=0.3 if rule == "ema" else None)
        assert sum(shares) == pytest.approx(1.0, abs=1e-15)


def test_ema_is_its_recurrence() -> None:
    values = [3.0, -1.0, 4.0, 1.5]
    running = values[0]
    for value in values[1:]:
        running = 0.7 * running + (1 - 0.7) * value
    shares = coefficients("ema", 4, decay=0.7)
    assert sum(share * value for share, value in zip(shares, values, strict=True)) == pytest.approx(running, abs=1e-15)


@pytest.mark.parametrize(
    ("rule", "decay", "told"),
    [("ema", None, "needs one"), ("ema", 1.0, "not between"), ("ema", 0.0, "not between"), ("sma", 0.5, "remove it")],
)
def test_a_decay_that_is_refused(rule: str, decay: float | None, told: str) -> None:
    with pytest.raises(ChorusError, match=told):
        coefficients(rule, 3, decay=decay)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rule", "decay"), [("sma", None), ("ema", 0.8), ("wma", None)])
def test_the_mean_of_every_weight(
    rule: str, decay: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = stored(tmp_path)
    monkeypatch.setattr(state_files, "BLOCK_BYTES", 3 * 8 * 4)  # three rows at once
    output = tmp_path / "mean"
    read: list[int] = []
    average = Average.of([folders[2], folders[0], folders[1]], rule=rule, decay=decay)  # type: ignore[arg-type]
    write_average(average, folder=str(output), advance=read.append, most_file_bytes=4 * 8 * 4)
    assert sum(read) == average.num_bytes
    shares = coefficients(rule, 3, decay=decay)  # type: ignore[arg-type]
    found, of = whole(output), [whole(folder) for folder in folders]
    assert set(found) == {key for key in of[0] if key.startswith("model/")}  # no optimizer state
    for key, value in found.items():
        expected = sum(share * one[key].double() for share, one in zip(shares, of, strict=True))
        assert isinstance(expected, Tensor)
        assert value.dtype == torch.float32
        # To within float32's rounding of the float64 mean.
        torch.testing.assert_close(value.double(), expected, rtol=6e-8, atol=0)
    assert verify_checkpoint(str(output), advance=quiet).is_whole
    files = sorted((output / "state").glob("*.safetensors"))
    assert len(files) > 5  # tables are cut, too
    for file in files:
        with safe_open(str(file), framework="pt") as opened:
            assert list(opened.keys())


def test_the_manifest_says_of_what(tmp_path: Path) -> None:
    folders = stored(tmp_path)
    output = tmp_path / "mean"
    write_average(Average.of(folders, rule="ema", decay=0.5), folder=str(output), advance=quiet)
    manifest, newest = read_manifest(str(output)), read_manifest(folders[2])
    assert (manifest.step, manifest.progress, manifest.model) == (3, newest.progress, newest.model)
    assert (manifest.quality, manifest.world_size) == (None, 1)
    assert manifest.averaged == {
        "rule": "ema",
        "decay": 0.5,
        "of": [{"folder": folder, "step": n + 1, "share": (0.25, 0.25, 0.5)[n]} for n, folder in enumerate(folders)],
    }
    assert newest.averaged == {}
    for name in ("run.toml", "plan.json"):
        assert (output / name).read_bytes() == (Path(folders[2]) / name).read_bytes()


def test_equal_weights_stay_bit_for_bit(tmp_path: Path) -> None:
    folders = [str(store(tmp_path / f"{n}", state(5), step=n)) for n in range(3)]
    write_average(Average.of(folders, rule="ema", decay=0.9), folder=str(tmp_path / "mean"), advance=quiet)
    found, one = whole(tmp_path / "mean"), state(5)
    assert all(torch.equal(found[key], one[key]) for key in found)


def test_small_differences_are_not_lost(tmp_path: Path) -> None:
    """In float32 a sum of 20,000 would have swallowed the ones."""
    big, key = 2.0**24, DENSE.format("deep.mlp.layers.0.bias")
    folders = [
        str(store(tmp_path / f"{n}", state() | {key: torch.full((4,), value)}, step=n))
        for n, value in enumerate([big, 1.0, 1.0, -big])
    ]
    write_average(Average.of(folders, rule="sma"), folder=str(tmp_path / "mean"), advance=quiet)
    assert whole(tmp_path / "mean")[key].tolist() == [0.5] * 4


def test_integers_are_the_newest_ones(tmp_path: Path) -> None:
    key = DENSE.format("deep.salt")
    folders = [
        str(store(tmp_path / f"{n}", state(n) | {key: torch.tensor([3 + n, 100 * n])}, step=n)) for n in range(3)
    ]
    write_average(Average.of(folders, rule="sma"), folder=str(tmp_path / "mean"), advance=quiet)
    found = whole(tmp_path / "mean")[key]
    assert (found.dtype, found.tolist()) == (torch.int64, [5, 200])


def refusal(folders: list[str], output: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        write_average(Average.of(folders, rule="sma"), folder=str(output), advance=quiet)
    return str(refused.value)


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    one = str(store(tmp_path / "one", state(), step=1))
    rows = {"C1": 10, "C2": 7}
    others = {
        "dictionary: d2 in the second": ({}, model_facts(dictionary="d2")),
        "table_rows.C2: 6 in the first, 7 in the second": ({}, model_facts(table_rows=rows)),
        "groups.deep: shared in the first, solo in the second": (
            {},
            model_facts(groups={"deep": "solo", "solo": "solo"}),
        ),
        "shared/C1.weight: (10, 8) in the first, (9, 8) in the second": ({KEY: torch.zeros(9, 8)}, None),
        "shared/C1.weight: another type": ({KEY: torch.zeros(10, 8).half()}, None),
        "deep.salt: None in the first, (1,) in the second": ({DENSE.format("deep.salt"): torch.zeros(1)}, None),
    }
    for number, (told, (tensors, model)) in enumerate(others.items()):
        other = str(store(tmp_path / f"other_{number}", state() | tensors, step=2, model=model))
        sentence = refusal([one, other], tmp_path / "mean")
        assert "are of different models" in sentence
        assert told in sentence.replace("d1 in the first, ", ""), sentence
    assert not (tmp_path / "mean").exists()


def test_what_else_is_refused(tmp_path: Path) -> None:
    folders = stored(tmp_path, 2)
    assert "name at least two" in refusal(folders[:1], tmp_path / "mean")
    assert "given twice" in refusal([folders[0], folders[1], f"{folders[0]}/"], tmp_path / "mean")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    assert "is there already" in refusal(folders, tmp_path / "full")
    assert (tmp_path / "full" / "file").read_text() == "mine"
    bad = state() | {KEY: torch.full((10, 8), torch.inf)}
    infinite = str(store(tmp_path / "infinite", bad, step=9))
    assert f"{KEY}: not finite" in refusal([*folders, infinite], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    assert json.loads((Path(folders[0]) / "manifest.json").read_text())["averaged"] == {}
