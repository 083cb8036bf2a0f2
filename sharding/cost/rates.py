"""Rates: how many seconds a rank of a machine takes for a product, a pass over tensors, table rows, a collective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from configs.hardware_schema import AccessRate, HardwareFile, LookupRates
from sharding.cost.work import DenseWork, Matmul, Pass

_Pick: TypeAlias = Callable[[LookupRates], AccessRate]

_GB = 1e9
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Access:
    """Rows of a table that a step looks up."""

    ids: float
    distinct: float  # rows among them
    bags: float  # that they are summed into
    row_bytes: float


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

    def lookup(self, access: Access) -> float:
        """Rows of tables read and summed into bags."""
        return self._access(lambda rates: rates.forward, access)

    def update(self, rule: str, access: Access) -> float:
        """Gradients of bags sorted by row, summed and applied; a rule without a rate goes by the slowest there is."""

        def of_rule(rates: LookupRates) -> AccessRate:
            known = rates.backward
            return known[rule] if rule in known else max(known.values(), key=lambda rate: access_seconds(rate, access))

        return self._access(of_rule, access)

    def _access(self, of: _Pick, access: Access) -> float:
        far = access_seconds(of(self._file.lookup), access)
        if self._file.lookup_cached is None:
            return far
        near = access_seconds(of(self._file.lookup_cached), access)
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


def access_seconds(rate: AccessRate, access: Access) -> float:
    """What the terms of an AccessRate come to."""
    row_bytes = access.row_bytes
    of_id = rate.id_ns * 1e-9 + _moving(row_bytes, rate.id_gb_per_s)
    of_row = rate.row_ns * 1e-9 + _moving(row_bytes, rate.row_gb_per_s)
    return access.ids * of_id + access.distinct * of_row + access.bags * _moving(row_bytes, rate.bag_gb_per_s)


def _moving(count: float, gb_per_s: float) -> float:
    return count / (gb_per_s * _GB) if gb_per_s else 0.0
