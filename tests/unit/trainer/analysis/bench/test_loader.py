"""The loader's measurements, on a small prepared folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.analysis.bench import loader as bench_loader

ROOT = Path(__file__).resolve().parents[5]
LINE = b"1\t" + b"\t".join([b"5"] * 13 + [b"ab"] * 26) + b"\n"
NUM_ROWS = 2_500


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("loader")
    (folder / "log.tsv").write_bytes(LINE * NUM_ROWS)
    command = [sys.executable, str(ROOT / "tools/prepare_criteo.py"), "--input", str(folder / "log.tsv")]
    subprocess.run([*command, "--output", str(folder / "out"), "--vocabulary", "hash"], check=True)
    return str(folder / "out")


@pytest.mark.parametrize("window", [0, 600])
def test_an_epoch_is_all_rows_in_batches(root: str, window: int) -> None:
    assert bench_loader.load(root, batch_rows=1_000, window=window) == 3


def test_each_way_is_timed_in_each_round(root: str) -> None:
    times = bench_loader.warm_seconds(root, 1_000, 2)
    assert len(times) == 3
    assert all(len(of_way) == 2 and min(of_way) > 0 for of_way in times.values())


def test_cold_rounds_say_what_came_from_the_disk(root: str) -> None:
    rates = bench_loader.cold_rates(root, 1_000, 2)
    shares = rates.pop("from_disk")
    assert len(shares) == 4
    assert all(len(of_way) == 2 and min(of_way) > 0 for of_way in rates.values())


def test_a_dropped_file_is_read_from_the_disk_again(tmp_path: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout
    if kind.strip() in ("tmpfs", "overlayfs"):
        pytest.skip(f"temporary files lie in {kind.strip()}, which does not drop them from memory")
    file = tmp_path / "file"
    file.write_bytes(b"x" * (4 << 20))
    bench_loader.drop_from_cache(str(file))
    before = bench_loader.bytes_from_disk()
    file.read_bytes()
    cold = bench_loader.bytes_from_disk() - before
    file.read_bytes()
    assert cold >= 4 << 20
    assert bench_loader.bytes_from_disk() - before == cold
