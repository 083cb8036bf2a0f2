"""The program that looks into checkpoints: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules.merge import MergeRule
from tests.support.stored_checkpoints import TABLE, flip, state, store
from tools import inspect_checkpoint
from trainer.checkpoints.export import load_member
from trainer.checkpoints.exported_ensemble import load_ensemble
from trainer.checkpoints.manifest import read_manifest
from trainer.merge_files import write_merge

KEY = TABLE.format("shared/C1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (1, 2, 3):
        store(tmp_path / "run" / "checkpoints" / f"step_{step:010d}", state(step), step=step, pieces=(step, 1))
    return tmp_path / "run"


def steps(run: Path) -> list[str]:
    return sorted(map(str, (run / "checkpoints").iterdir()))


def call(*words: object) -> int:
    return inspect_checkpoint.main([str(word) for word in words])


def test_show(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("show", run) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        f"{steps(run)[2]}\nstep 3; epoch 1, row 3 of it; 103 rows seen; saved by 4 rank(s); quality -0.5"
    )
    assert "plan for 4 rank(s): 6 row_wise" in text
    assert re.search(
        r"deep +shared +77 +[\d.]+ +[\d.]+  mlp\(hidden = \[4\], dropout = 0.0, batch_norm = False\)", text
    )
    norm = float(state(3)[KEY].double().norm())
    sums = float(state(3)["optimizer/tables/shared/C1/sum"].double().norm())
    assert re.search(rf"shared/C1 +10 +8 +{norm:.5g} .* 0  adagrad \(sum {sums:.4g}\); row_wise\n", text)
    assert re.search(r"solo\+first_order/C2 +6 +4 .*  sgd; row_wise\n", text)
    assert call("show", run, "--quick") == 0
    assert re.search(r"shared/C1 +10 +8 +- +- +- +-  adagrad \(sum\); row_wise", capsys.readouterr().out)
    assert call("show", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["tables"][0]["norm"] == pytest.approx(norm)


def test_show_names_what_is_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = state() | {KEY: torch.full((10, 8), torch.nan)}
    assert call("show", store(tmp_path / "a", bad)) == 0
    assert "NOT FINITE: 80 values" in capsys.readouterr().out


def test_compare(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = steps(run)
    assert call("compare", first, first) == 0
    assert capsys.readouterr().out.endswith("16 tensors: 16 equal bit for bit, 0 different\n")
    assert call("compare", first, second) == 1
    text = capsys.readouterr().out
    assert "16 tensors: 0 equal bit for bit, 16 different" in text
    assert re.search(r"shared/C1 +10 x 8 +[\d.]+ +[\d.]+  different\n", text)
    assert re.search(r"deep.mlp.layers.0.weight +4 x 17 +[\d.]+ +[\d.]+  different\n", text)
    near = state(1)
    near[KEY] = near[KEY] + 1e-4
    near["optimizer/tables/shared/C1/sum"] = torch.zeros(10, 8)
    other = store(tmp_path / "near", near)
    assert call("compare", first, other) == 1
    assert call("compare", first, other, "--tolerance", "2e-4") == 0
    assert "16 tensors: 15 equal bit for bit, 1 within 0.0002, 0 different" in capsys.readouterr().out
    assert call("compare", first, other, "--tolerance", "2e-4", "--state") == 1
    text = capsys.readouterr().out
    assert re.search(r"optimizer/tables/shared/C1/sum +10 x 8", text) and "deep.mlp" not in text
    assert call("compare", first, other, "--all") == 1
    assert re.search(r"deep.mlp.layers.2.bias +1 +equal", capsys.readouterr().out)
    assert call("compare", first, other, "--json") == 1
    assert json.loads(capsys.readouterr().out)[0]["finding"] == "different"
    assert call("compare", first, other, "--tolerance", "-1") == 2


def test_verify(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", run) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["whole"] * 3
    damaged = Path(steps(run)[1]) / "state" / "rank_0_0.safetensors"
    flip(damaged)
    (Path(steps(run)[2]) / "manifest.json").unlink()
    assert call("verify", run) == 1
    whole, first, why_first, second, why_second = capsys.readouterr().out.splitlines()
    assert whole.startswith(f"whole: {steps(run)[0]}")
    assert first == f"DAMAGED: {steps(run)[1]}"
    assert why_first == f"  {damaged} is damaged: its bytes are not those written"
    assert second == f"DAMAGED: {steps(run)[2]}" and "not finished" in why_second
    assert call("verify", steps(run)[0]) == 0
    assert call("verify", run.parent / "nowhere") == 2


def test_export(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "solo.safetensors"
    assert call("export", run, "--member", "solo", "--output", output) == 0
    assert f"{output}: solo of step 3" in capsys.readouterr().out
    assert load_member(str(output)).facts.step == 3
    assert call("export", run, "--member", "solo", "--output", output) == 2
    assert call("export", run, "--member", "wide", "--output", tmp_path / "new") == 2
    flip(Path(steps(run)[2]) / "state" / "rank_0_0.safetensors")
    assert call("export", run, "--member", "solo", "--output", tmp_path / "new") == 2
    assert "is damaged" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_export_of_all(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "exported"
    assert call("export", run, "--all", "--programs", "--output", output) == 0
    assert f"{output}: deep, solo of step 3, merged by mean_logit of 2, " in capsys.readouterr().out
    assert {file.suffix for file in output.iterdir()} == {".safetensors", ".pt2", ".toml", ".json"}
    ensemble = load_ensemble(str(output))
    inputs = torch.tensor([[0.5], [-1.0]]), {"C1": torch.tensor([9, 0]), "C2": torch.tensor([1, 5])}
    torch.testing.assert_close(
        ensemble.merged(*inputs), torch.sigmoid(ensemble.logits(*inputs).double().mean(dim=1)), rtol=1e-12, atol=0
    )
    rule = MergeRule(rule="stacking", members=("solo", "deep"), weights=(2.0, -1.0), intercept=0.5)
    write_merge(str(tmp_path / "merge.toml"), rule)
    fitted = tmp_path / "fitted"
    assert call("export", run, "--all", "--merge", tmp_path / "merge.toml", "--output", fitted) == 0
    assert load_ensemble(str(fitted)).rule == rule
    assert call("export", run, "--all", "--output", fitted) == 2
    assert call("export", run, "--member", "deep", "--programs", "--output", tmp_path / "new") == 2
    assert "--programs: is for a whole ensemble; give --all" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_average(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("average", "--last", "2", run, "--rule", "wma", "--output", tmp_path / "mean") == 0
    assert capsys.readouterr().out == (
        f"{tmp_path / 'mean'}: the mean of\n  0.333333  {steps(run)[1]}\n  0.666667  {steps(run)[2]}\n"
    )
    assert [one["step"] for one in read_manifest(str(tmp_path / "mean")).averaged["of"]] == [2, 3]
    assert call("show", tmp_path / "mean") == 0
    assert "mean by wma of steps 2 (0.333), 3 (0.667); no optimizer state" in capsys.readouterr().out
    assert call("average", *steps(run), "--rule", "ema", "--decay", "0.5", "--output", tmp_path / "ema") == 0
    refused = [
        (("--last", "4", run), "has 3"),
        (("--last", "1", run), "two or more"),
        (("--last", "2", run, run), "one run's folder"),
        ((*steps(run), "--rule", "ema"), "needs one"),
        ((*steps(run), "--decay", "0.5"), "remove it"),
        ((steps(run)[0],), "at least two"),
    ]
    for words, told in refused:
        assert call("average", *words, "--output", tmp_path / "new") == 2
        assert told in capsys.readouterr().err
    flip(Path(steps(run)[1]) / "state" / "rank_0_0.safetensors")
    assert call("average", "--last", "2", run, "--output", tmp_path / "new") == 2
    assert "is damaged" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_reader_that_leaves(run: Path) -> None:
    program = Path(inspect_checkpoint.__file__)
    words = [sys.executable, str(program), "show", str(run), "--quick"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None and started.stderr is not None
        started.stdout.close()
        assert "rror" not in started.stderr.read()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], *([name, "--help"] for name in ("show", "compare", "verify", "export", "average"))):
        with pytest.raises(SystemExit) as left:
            inspect_checkpoint.main(words)
        assert left.value.code == 0
    text = capsys.readouterr().out
    for name in ("show", "compare", "verify", "export", "average"):
        assert f"python tools/inspect_checkpoint.py {name}" in text
