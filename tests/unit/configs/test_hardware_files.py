"""Every shipped machine loads, its figures make sense together, and TorchX asks for the same machines."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from configs.hardware_schema import TABLE_RULES, HardwareFile
from configs.loader import dump_hardware, read_hardware
from sharding.cost.rates import Access, access_seconds
from torchx_components import resources

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "hardware"
FILES = sorted(FOLDER.glob("*.toml"))
MACHINES = {path.stem: read_hardware(str(path)) for path in FILES}
OF_DATA_SHEETS = [name for name, machine in MACHINES.items() if not machine.measured]
GPUS = [name for name, machine in MACHINES.items() if machine.device == "cuda"]


def test_none_is_forgotten() -> None:
    assert list(MACHINES) == [
        "a100_40gb_8",
        "a100_80gb_8",
        "b200_180gb_8",
        "cpu_spr_2s",
        "h100_80gb_8",
        "h200_141gb_8",
        "l40s_48gb_8",
        "two_cores_epyc",
    ]
    assert set(MACHINES) - set(OF_DATA_SHEETS) == {"two_cores_epyc"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_what_it_is_and_where_its_figures_are_from(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    machine = MACHINES[path.stem]
    assert machine.name == path.stem
    assert text.startswith("# ")
    tables = set(tomllib.loads(text)) - {"name", "device", "overlap", "sources"}
    needed = {"host", "memory", "matmul", "lookup", "intra_host", "inter_host", "overheads"}
    if machine.measured:
        assert tables == needed | {"measured", "lookup_cached", "calibration"}
        assert machine.calibration.runs > 0
    else:
        assert tables == needed
        assert len(machine.sources) >= 3
        assert all(": " in source for source in machine.sources)
    copy = tmp_path / path.name
    copy.write_text(dump_hardware(machine))
    assert read_hardware(str(copy)) == machine


@pytest.mark.parametrize("name", MACHINES)
def test_its_figures_make_sense_together(name: str) -> None:
    machine = MACHINES[name]
    assert machine.matmul["bf16"].tflops >= machine.matmul["fp32"].tflops
    assert machine.intra_host.gb_per_s >= machine.inter_host.gb_per_s
    assert machine.intra_host.latency_us <= machine.inter_host.latency_us
    assert machine.memory.gb_per_s > machine.intra_host.gb_per_s
    assert machine.memory.gb_per_s > machine.memory.host_gb_per_s
    assert machine.memory.process_gib * 2**30 < 0.1 * machine.rank_bytes
    assert machine.host.memory_gib > machine.host.ranks * machine.memory.gib
    assert machine.host.price_per_hour == 0
    assert machine.host.disk_gb_per_s < machine.memory.gb_per_s * machine.host.ranks


@pytest.mark.parametrize("name", OF_DATA_SHEETS)
@pytest.mark.parametrize("row_bytes", [64, 512])
def test_rows_are_not_reached_faster_than_memory_gives_them(name: str, row_bytes: int) -> None:
    machine = MACHINES[name]

    def gb_per_s(rate: object, *, rows_moved: int) -> float:
        seconds = access_seconds(rate, Access(ids=1.0, distinct=1.0, bags=1.0, row_bytes=row_bytes))  # type: ignore[arg-type]
        return rows_moved * row_bytes / seconds / 1e9

    assert gb_per_s(machine.lookup.forward, rows_moved=1) < machine.memory.gb_per_s
    assert gb_per_s(machine.lookup.forward, rows_moved=1) > 0.25 * machine.memory.gb_per_s
    for rule, rate in machine.lookup.backward.items():
        moved = 1 + {"sgd": 2, "adagrad": 4, "rowwise_adagrad": 2, "adam": 6}[rule]  # a gradient; weights and state
        assert gb_per_s(rate, rows_moved=moved) < machine.memory.gb_per_s, rule


@pytest.mark.parametrize("name", GPUS)
def test_rules_cost_what_they_move(name: str) -> None:
    rates = MACHINES[name].lookup.backward
    assert set(rates) == set(TABLE_RULES)
    seconds = {
        rule: access_seconds(rates[rule], Access(ids=1.0, distinct=1.0, bags=1.0, row_bytes=512))
        for rule in TABLE_RULES
    }
    assert seconds["sgd"] < seconds["rowwise_adagrad"] < seconds["adagrad"] < seconds["adam"]
    assert MACHINES[name].overlap == "data_and_ids"


def test_newer_machines_are_faster() -> None:
    order = ["a100_40gb_8", "a100_80gb_8", "h100_80gb_8", "h200_141gb_8", "b200_180gb_8"]

    def rising(figures: list[float]) -> bool:
        return figures == sorted(figures)

    machines: list[HardwareFile] = [MACHINES[name] for name in order]
    assert rising([machine.memory.gb_per_s for machine in machines])
    assert rising([machine.lookup.forward.row_gb_per_s for machine in machines])
    assert rising([machine.matmul["fp32"].tflops for machine in machines])
    assert rising([machine.matmul["bf16"].tflops for machine in machines])
    assert rising([machine.intra_host.gb_per_s for machine in machines])
    assert rising([machine.inter_host.gb_per_s for machine in machines])
    slowest = MACHINES["cpu_spr_2s"]
    assert all(MACHINES[gpu].memory.gb_per_s > slowest.memory.gb_per_s * slowest.host.ranks for gpu in GPUS)


@pytest.mark.parametrize("name", [name for name in GPUS if hasattr(resources, name)])
def test_torchx_asks_for_the_same_machine(name: str) -> None:
    asked = getattr(resources, name)()
    machine = MACHINES[name]
    assert asked.gpu == machine.host.ranks
    assert machine.host.memory_gib == pytest.approx(asked.memMB / 1024, abs=1)
    nominal = int(name.split("_")[1].removesuffix("gb"))
    assert 0.9 * nominal < machine.memory.gib <= nominal


def test_most_gpus_are_known_to_torchx() -> None:
    assert [name for name in GPUS if not hasattr(resources, name)] == ["l40s_48gb_8"]
