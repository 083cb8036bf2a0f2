"""Rates: how many seconds a rank of a machine takes for a product, a pass over tensors, table rows, a collective."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from configs.hardware_schema import AccessRate, HardwareFile, LookupRates
from sharding.cost.work import DenseWork, Matmul, Pass

_Pick: TypeAlias = Callable[[LookupRates], AccessRate]

_GB = 1e9
_MIB = 2**20


class Rates:
    """The rates of one rank; every figure is seconds.

    Args:
        file: The machine.
        table_bytes: Weights and optimizer state of the tables on the rank: what fits into the cache is reached faster.
    """

    def __init__(self, file: HardwareFile, *, table_bytes: float = 0.0) -> None:
        self._file = file
        cache = file.memory.cache_mib * _MIB
        self._cached_share = min(1.0, cache / table_bytes) if table_bytes else 1.0

    def dense(self, work: DenseWork) -> float:
        """All operations of members, one after the other."""
        products = sum(self.matmul(one) for one in work.matmuls)
        passes = sum(self.tensor_pass(one) for one in work.passes)
        return products + passes + work.num_ops * self._file.overheads.op_us * 1e-6

    def matmul(self, one: Matmul) -> float:
        """Products: what the arithmetic takes, or what moving the operands takes where that is more."""
        rate = self._file.matmul.get(one.precision, self._file.matmul["fp32"])
        slower = (1 + rate.half_m / one.m) * (1 + rate.half_k / one.k) * (1 + rate.half_n / one.n)
        arithmetic = one.flops * slower / (rate.tflops * 1e12)
        return max(arithmetic, one.count * self.moved(one.moved_bytes / one.count))

    def tensor_pass(self, one: Pass) -> float:
        """Operations that only read and write."""
        return one.count * self.moved(one.moved_bytes)

    def moved(self, count: float) -> float:
        """Bytes of tensors read and written by one operation."""
        memory = self._file.memory
        is_cached = count <= memory.cache_mib * _MIB and memory.cache_gb_per_s
        return count / ((memory.cache_gb_per_s if is_cached else memory.gb_per_s) * _GB)

    def lookup(self, *, ids: float, distinct: float, row_bytes: float) -> float:
        """Rows of tables read and summed into bags."""
        return self._access(lambda rates: rates.forward, ids=ids, distinct=distinct, row_bytes=row_bytes)

    def update(self, rule: str, *, ids: float, distinct: float, row_bytes: float) -> float:
        """Gradients of bags sorted by row, summed and applied; a rule without a rate goes by the slowest there is."""

        def of_rule(rates: LookupRates) -> AccessRate:
            known = rates.backward
            return known[rule] if rule in known else max(known.values(), key=_cost_of_a_row)

        return self._access(of_rule, ids=ids, distinct=distinct, row_bytes=row_bytes)

    def _access(self, of: _Pick, *, ids: float, distinct: float, row_bytes: float) -> float:
        far = access_seconds(of(self._file.lookup), ids=ids, distinct=distinct, row_bytes=row_bytes)
        if self._file.lookup_cached is None:
            return far
        near = access_seconds(of(self._file.lookup_cached), ids=ids, distinct=distinct, row_bytes=row_bytes)
        return self._cached_share * near + (1 - self._cached_share) * far

    def from_host(self, count: float) -> float:
        """Bytes over the link between host memory and a GPU."""
        rate = self._file.memory.host_gb_per_s
        return count / (rate * _GB) if rate else 0.0

    def collective(self, name: str, *, times: int, intra_bytes: float, inter_bytes: float) -> float:
        """`times` collectives in which a rank sends so many bytes to others, by link; the links work side by side."""
        seconds, latency = 0.0, 0.0
        for link, sent in ((self._file.intra_host, intra_bytes), (self._file.inter_host, inter_bytes)):
            if sent:
                wire = link.wire(name)
                seconds = max(seconds, sent / (wire.gb_per_s * _GB))
                latency = max(latency, wire.latency_us * 1e-6)
        return seconds + times * latency


def access_seconds(rate: AccessRate, *, ids: float, distinct: float, row_bytes: float) -> float:
    """What the two terms of an AccessRate come to."""
    of_id = rate.id_ns * 1e-9 + (row_bytes / (rate.id_gb_per_s * _GB) if rate.id_gb_per_s else 0.0)
    of_row = rate.row_ns * 1e-9 + (row_bytes / (rate.row_gb_per_s * _GB) if rate.row_gb_per_s else 0.0)
    return ids * of_id + distinct * of_row


def _cost_of_a_row(rate: AccessRate) -> float:
    return access_seconds(rate, ids=1, distinct=1, row_bytes=256)
