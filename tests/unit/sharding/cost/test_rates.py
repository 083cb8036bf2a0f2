"""Rates against arithmetic in the head."""

from __future__ import annotations

import dataclasses

import pytest

from configs.hardware_schema import AccessRate, LookupRates, MatmulRate, Memory, Overheads
from sharding.cost.rates import Access, Rates, access_seconds
from sharding.cost.work import DenseWork, Matmul, Pass
from tests.unit.sharding.cost.made_hardware import round_machine


def test_a_large_product_takes_its_arithmetic_and_a_skinny_one_its_bytes() -> None:
    rates = Rates(round_machine())
    assert rates.matmul(Matmul(m=1000, k=1000, n=1000)) == pytest.approx(2e-3)
    skinny = Matmul(m=1_000_000, k=1, n=1)
    assert rates.matmul(skinny) == pytest.approx(skinny.moved_bytes / 100e9)
    assert skinny.moved_bytes > skinny.flops / 1e12 * 100e9


def test_a_dimension_at_its_half_size_halves_the_rate() -> None:
    machine = round_machine(matmul={"fp32": MatmulRate(tflops=1.0, half_m=1000.0, half_k=1000.0)})
    assert Rates(machine).matmul(Matmul(m=1000, k=1000, n=1000)) == pytest.approx(4 * 2e-3)


def test_a_precision_without_a_rate_goes_by_fp32_and_counts_add_up() -> None:
    rates = Rates(round_machine())
    one = Matmul(m=1000, k=1000, n=1000, precision="bf16")
    assert rates.matmul(one) == pytest.approx(2e-3)
    assert rates.matmul(dataclasses.replace(one, count=3, batch=2)) == pytest.approx(12e-3)


def test_small_tensors_move_at_the_cache_s_rate() -> None:
    rates = Rates(round_machine(memory=Memory(gb_per_s=100.0, cache_mib=1.0, cache_gb_per_s=400.0)))
    assert rates.tensor_pass(Pass(moved_bytes=2**20)) == pytest.approx(2**20 / 400e9)
    assert rates.tensor_pass(Pass(moved_bytes=2**20 + 1)) == pytest.approx(2**20 / 100e9, rel=1e-5)


def test_every_operation_of_members_pays_its_overhead() -> None:
    machine = round_machine(overheads=Overheads(op_us=5.0))
    work = DenseWork(matmuls=(Matmul(m=1000, k=1000, n=1000, count=2),), passes=(Pass(moved_bytes=100_000, count=3),))
    assert Rates(machine).dense(work) == pytest.approx(2 * 2e-3 + 3 * 1e-6 + 5 * 5e-6)


def test_lookups_pay_by_id_and_updates_by_distinct_row() -> None:
    rates = Rates(round_machine())
    access = Access(ids=100, distinct=50, bags=10, row_bytes=40)
    assert rates.lookup(access) == pytest.approx(100 * (10e-9 + 40e-9))
    assert rates.update("adagrad", access) == pytest.approx(50 * (200e-9 + 40e-9))
    assert rates.update("sgd", access) == pytest.approx(50 * 100e-9)


def test_a_rule_that_nobody_measured_goes_by_the_slowest() -> None:
    rates = Rates(round_machine())
    access = Access(ids=9, distinct=3, bags=9, row_bytes=40)
    assert rates.update("adam", access) == rates.update("adagrad", access)


def test_bags_are_written_once_each() -> None:
    rate = AccessRate(bag_gb_per_s=2.0)
    assert access_seconds(rate, Access(ids=9, distinct=3, bags=5, row_bytes=40)) == pytest.approx(5 * 20e-9)


@pytest.mark.parametrize(("table_bytes", "share"), [(2**19, 1.0), (2**20, 1.0), (4 * 2**20, 0.25)])
def test_tables_in_the_cache_are_read_faster_by_the_share_that_fits(table_bytes: float, share: float) -> None:
    near = LookupRates(forward=AccessRate(id_ns=1.0), backward={"sgd": AccessRate(row_ns=1.0)})
    machine = round_machine(memory=Memory(gb_per_s=100.0, cache_mib=1.0), lookup_cached=near)
    found = Rates(machine, table_bytes=table_bytes).lookup(Access(ids=1, distinct=1, bags=1, row_bytes=0))
    assert found == pytest.approx(share * 1e-9 + (1 - share) * 10e-9)


def test_links_work_side_by_side_and_each_collective_has_its_wire() -> None:
    rates = Rates(round_machine())
    assert rates.collective("all_to_all", times=3, intra_bytes=1e6, inter_bytes=0) == pytest.approx(1e-4 + 3e-6)
    assert rates.collective("all_to_all", times=1, intra_bytes=1e6, inter_bytes=1e6) == pytest.approx(1e-3 + 1e-5)
    assert rates.collective("all_reduce", times=1, intra_bytes=0, inter_bytes=1e6) == pytest.approx(5e-4)
    assert rates.collective("all_reduce", times=4, intra_bytes=0, inter_bytes=0) == 0
