"""Measuring a machine: what is refused before anything is measured, and, slowly, a file from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.loader import read_hardware
from tools import measure_hardware


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sections", "memory", "gpu"], "--sections: 'gpu' is none of memory, products, lookup, links, disk, over"),
        (["--sections", "memory"], "--sections: products is not among them, and there is no file"),
        (["--ranks", "0"], "--ranks: 0 is not from 1 to "),
        (["--ranks", "100000"], "--ranks: 100000 is not from 1 to "),
        (["--ranks", "1"], "--inter-host-gb-per-s: not given, and one rank has nobody on this host"),
        (["--price-per-hour", "-1"], "--price-per-hour: -1.0 must not be negative"),
        (["--price-per-hour", "nan"], "--price-per-hour: nan must not be negative"),
        (["--inter-host-gb-per-s", "0"], "--inter-host-gb-per-s: 0.0 must be above zero"),
        (["--inter-host-latency-us", "3"], "--inter-host-latency-us: needs --inter-host-gb-per-s"),
        (["--disk-mib", "0"], "--disk-mib: 0 must be above zero"),
        (["--name", " "], "--name: empty"),
        (["--points", "nowhere/points.json"], "--points: the folder 'nowhere' is not there"),
        (["--folder", "nowhere"], "--folder: 'nowhere' is not a folder that can be written to"),
    ],
)
def test_what_cannot_be_is_refused(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "machine.toml"
    assert measure_hardware.main(["--output", str(output), "--device", "cpu", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not output.exists()


def test_a_file_of_other_ranks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "machine.toml"
    output.write_text(TEXT)
    words = ["--output", str(output), "--device", "cpu", "--sections", "memory", "--ranks", "1"]
    assert measure_hardware.main(words) == 2
    assert "it is of 7 ranks on cpu, and 1 on cpu are measured now" in capsys.readouterr().err
    assert output.read_text() == TEXT


@pytest.mark.slow
def test_a_quick_look_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, points = tmp_path / "machine.toml", tmp_path / "points.json"
    words = ["--output", str(output), "--points", str(points), "--quick", "--device", "cpu", "--ranks", "2"]
    assert measure_hardware.main([*words, "--name", "here"]) == 0
    first = read_hardware(str(output))
    assert (first.name, first.host.ranks) == ("here", 2)
    assert first.measured.startswith("quick, not for planning; ")
    assert set(first.lookup.backward) == {"sgd", "adagrad", "rowwise_adagrad"}
    assert set(first.intra_host.collectives) == {"all_to_all", "all_reduce", "reduce_scatter", "all_gather"}
    assert set(json.loads(points.read_text())["sections"]) == set(measure_hardware.SECTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["machine.toml", "points.json"]
    assert measure_hardware.main([*words, "--sections", "products", "--price-per-hour", "3"]) == 0
    again = read_hardware(str(output))
    assert (again.lookup, again.memory, again.name) == (first.lookup, first.memory, "here")
    assert again.host.price_per_hour == 3
    assert set(json.loads(points.read_text())["sections"]) == set(measure_hardware.SECTIONS)
    assert "ETA" in capsys.readouterr().err


TEXT = """
name = "other"
device = "cpu"
[host]
ranks = 7
memory_gib = 8.0
[memory]
gb_per_s = 5.0
[matmul.fp32]
tflops = 0.1
[lookup.forward]
id_ns = 1.0
[lookup.backward.sgd]
id_ns = 1.0
[intra_host]
gb_per_s = 1.0
[inter_host]
gb_per_s = 1.0
"""
