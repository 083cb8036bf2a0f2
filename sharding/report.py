"""PlanReport: what a plan costs each rank, in bytes held and bytes sent, as a table and as JSON.

It is arithmetic over the plan (sharding/ledger.py has the formulas): no process group, no GPU, so that it speaks of
machines that are not there too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchrec.distributed.types import ShardingType

from sharding.ledger import HOST_KIND, Ledger, PlannedJob, PlannedTable, ShardLoad

LINKS = ("intra_host", "inter_host")


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """Bytes by kind and rank, and what each rank looks up; sharding/ledger.py has the formulas."""

    job: PlannedJob
    tables_per_sharding_type: Mapping[str, int]
    bytes_per_rank: Mapping[str, tuple[int, ...]]
    sent_bytes_per_rank: Mapping[str, tuple[int, ...]]
    received_bytes_per_rank: Mapping[str, tuple[int, ...]]
    # Of sent_bytes_per_rank, what goes to other hosts.
    sent_to_hosts_per_rank: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lookups: tuple[ShardLoad, ...] = ()
    row_wise_share: float = 0.0  # of the columns of all sharded tables, those of tables split by rows

    @property
    def held(self) -> tuple[int, ...]:
        """Bytes of each rank where it computes: of its GPU, or of its host's memory without one."""
        return _total(self.bytes_per_rank, without=(HOST_KIND,))

    @property
    def sent(self) -> tuple[int, ...]:
        """Bytes that each rank sends in one step."""
        return _total(self.sent_bytes_per_rank)

    @property
    def sent_by_link(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Kind -> link, intra_host or inter_host -> bytes that each rank sends over it in one step."""
        split = {}
        for kind, sent in self.sent_bytes_per_rank.items():
            elsewhere = self.sent_to_hosts_per_rank.get(kind, (0,) * len(sent))
            within = tuple(count - out for count, out in zip(sent, elsewhere, strict=True))
            split[kind] = dict(zip(LINKS, (within, elsewhere), strict=True))
        return split

    @property
    def received(self) -> tuple[int, ...]:
        """Bytes that each rank receives in one step."""
        return _total(self.received_bytes_per_rank)

    @property
    def imbalance(self) -> float:
        """The fullest rank's bytes over the mean; 1.0 is even."""
        return _imbalance(self.held)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        by_kind = {
            "bytes_per_rank": self.bytes_per_rank,
            "sent_bytes_per_rank": self.sent_bytes_per_rank,
            "received_bytes_per_rank": self.received_bytes_per_rank,
            "sent_to_hosts_per_rank": self.sent_to_hosts_per_rank,
        }
        return {
            "tables_per_sharding_type": dict(self.tables_per_sharding_type),
            "row_wise_share": self.row_wise_share,
            **{name: {kind: list(of_ranks) for kind, of_ranks in kinds.items()} for name, kinds in by_kind.items()},
            "imbalance": {
                "held": self.imbalance,
                "table_weights": _imbalance(self.bytes_per_rank["table_weights"]),
                "sent": _imbalance(self.sent),
                "received": _imbalance(self.received),
            },
        }

    def sentence(self) -> str:
        """One line for the log."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.tables_per_sharding_type.items()))
        return (
            f"plan: {kinds} tables; {readable_bytes(max(self.held))} on the fullest rank,"
            f" {self.imbalance:.2f} x the mean; {readable_bytes(max(self.sent))} sent by the busiest a step"
        )

    def table(self) -> str:
        """The sentence, and a line per kind of bytes that there are."""
        rows = [*self.bytes_per_rank.items(), ("in all", self.held)]
        held = [(kind, _mean(of), max(of), f"{_imbalance(of):.2f}") for kind, of in rows if any(of)]
        moved = [*((kind, of, self.received_bytes_per_rank[kind]) for kind, of in self.sent_bytes_per_rank.items())]
        moved.append(("in all", self.sent, self.received))
        sent = [(kind, _mean(of), max(of), readable_bytes(max(got))) for kind, of, got in moved if any(of) or any(got)]
        return "\n".join(
            [
                self.sentence(),
                f"  {'held by a rank':<30}{'mean':>12}{'most':>12}{'most/mean':>12}",
                *(_line(*row) for row in held),
                *([f"  {'moved in a step':<30}{'mean':>12}{'most sent':>12}{'most got':>12}"] if sent else []),
                *(_line(*row) for row in sent),
            ]
        )


def report_plan(
    placed: Mapping[str, Mapping[str, Any]], *, tables: Mapping[str, PlannedTable], job: PlannedJob
) -> PlanReport:
    """Adds up a plan.

    Args:
        placed: Table name -> its plan, as `plan_tables_json` gives it.
        tables: Table name -> what it is.
        job: The job around them.
    """
    ledger = Ledger(job)
    for name, plan in placed.items():
        ledger.add(name, tables[name], plan)
    ledger.add_dense()
    return PlanReport(
        job=job,
        tables_per_sharding_type=dict(sorted(Counter(plan["sharding_type"] for plan in placed.values()).items())),
        bytes_per_rank=_rounded(ledger.held),
        sent_bytes_per_rank=_rounded(ledger.sent),
        received_bytes_per_rank=_rounded(ledger.received),
        sent_to_hosts_per_rank=_rounded(ledger.sent_to_hosts),
        lookups=tuple(ledger.loads),
        row_wise_share=_row_wise_share(placed, tables=tables),
    )


def _row_wise_share(placed: Mapping[str, Mapping[str, Any]], *, tables: Mapping[str, PlannedTable]) -> float:
    columns: Counter[str] = Counter()
    for name, plan in placed.items():
        columns[plan["sharding_type"]] += tables[name].dim
    sharded = columns.total() - columns[ShardingType.DATA_PARALLEL.value]
    return columns[ShardingType.ROW_WISE.value] / sharded if sharded else 0.0


def _rounded(kinds: Mapping[str, NDArray[np.float64]]) -> dict[str, tuple[int, ...]]:
    return {kind: tuple(round(count) for count in of_ranks.tolist()) for kind, of_ranks in kinds.items()}


def _total(kinds: Mapping[str, tuple[int, ...]], *, without: Sequence[str] = ()) -> tuple[int, ...]:
    return tuple(map(sum, zip(*(of_ranks for kind, of_ranks in kinds.items() if kind not in without), strict=True)))


def _mean(of_ranks: Sequence[int]) -> float:
    return sum(of_ranks) / len(of_ranks)


def _imbalance(of_ranks: Sequence[int]) -> float:
    return max(of_ranks) / _mean(of_ranks) if any(of_ranks) else 1.0


def readable_bytes(count: float) -> str:
    """As 68.0 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:,.0f} bytes" if unit == "bytes" else f"{count:,.1f} {unit}"


def _line(kind: str, mean: float, most: int, last: str) -> str:
    return f"    {kind:<28}{readable_bytes(mean):>12}{readable_bytes(most):>12}{last:>12}"
