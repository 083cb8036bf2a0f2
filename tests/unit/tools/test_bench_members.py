"""The benchmark of members: from end to end on few rows, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch

from tools import bench_members

SHORT = ("--batch-size=16", "--fields=3", "--dim=4", "--seconds=0.001", "--rounds=2", "--matrix-size=32")


@pytest.fixture(autouse=True)
def threads_as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_kinds_beside_their_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "speed.json"
    words = ["--kinds", "mlp", "fm", "lr", "--hidden", "8", "4", "--numeric", "0", "--json", str(kept)]
    assert bench_members.main([*SHORT, *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-6:]] == [
        [kind, precision] for kind in ("mlp", "fm", "lr") for precision in ("fp32", "bf16")
    ]
    found = json.loads(kept.read_text())
    assert found["machine"]["cores"] >= 1
    deep, pairs, linear = found["members"]
    assert (deep["arch"]["hidden"], deep["parameters"]) == ([8, 4], 12 * 8 + 8 + 8 * 4 + 4 + 4 + 1)
    assert pairs["multiply_adds"] == (3 + 1) * 4
    for precision in ("fp32", "bf16"):
        for way, passes in (("evaluation", 1), ("training", 3)):
            measured = deep[precision][way]
            bounds = [rate / (2 * passes * deep["multiply_adds"]) for rate in found["gemm_flops_runs"][precision]]
            shares = [run / bound for run, bound in zip(measured["runs"], bounds, strict=True)]
            assert len(shares) == 2
            assert measured["bound_rows_per_second"] == pytest.approx(statistics.median(bounds))
            assert measured["share_of_bound"] == pytest.approx(statistics.median(shares))
        assert sum(deep[precision]["training_parts"].values()) == pytest.approx(1)
        assert deep[precision]["training_parts"]["matrix products"] > 0
        assert deep[precision]["training_parts"]["optimizer"] > 0
        assert "share_of_bound" not in linear[precision]["training"]  # without numbers it multiplies nothing


def test_copies_one_by_one_and_stacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "speed.json"
    words = ["--kinds", "dcn", "--precisions", "fp32", "--copies", "2", "--clock", "cpu", "--json", str(kept)]
    assert bench_members.main([*SHORT, *words]) == 0
    (member,) = json.loads(kept.read_text())["members"]
    ways = member["fp32"]
    assert set(ways) == {"evaluation", "training", "stacked_evaluation", "stacked_training"}
    for way in ("evaluation", "training"):
        ratios = [s / a for s, a in zip(ways[f"stacked_{way}"]["runs"], ways[way]["runs"], strict=True)]
        assert ways[f"stacked_{way}"]["times_one_by_one"] == pytest.approx(sum(ratios) / 2)
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:2] == ["dcn", "fp32"] and len(last) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kinds", "mpl"], "'mpl' is not known here; choose of autoint"),
        (["--precisions", "fp64"], "'fp64' is not known here; choose of fp32, bf16"),
        (["--batch-size", "0"], "--batch-size: 0 must be above zero"),
        (["--hidden", "8", "-1"], "--hidden: -1 must be above zero"),
        (["--clock", "cpu", "--threads", "2"], "--clock: cpu counts one thread's seconds"),
    ],
)
def test_what_it_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_members.main(words) == 2
    assert message in capsys.readouterr().err
