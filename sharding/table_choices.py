"""TableChoices: where each table may lie, what is left of a machine for tables, and why they do not fit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchrec.distributed.planner import ParameterConstraints
from torchrec.distributed.planner.constants import DEFAULT_PERF_ESTIMATOR
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.estimator import EmbeddingPerfEstimatorFactory
from torchrec.distributed.planner.types import ShardingOption, Storage
from torchrec.distributed.types import ShardingType

from configs.errors import PlanError
from sharding.constraints import HOST_MEMORY_KERNELS
from sharding.hardware import Hardware
from sharding.report import readable_bytes
from sharding.shard_storage import ShardStorage


class TablesDoNotFitError(PlanError):
    """No plan fits. The bytes are of one rank, or means of all ranks where no single table is to blame."""

    need_bytes: int = 0
    capacity_bytes: int = 0
    table: str | None = None  # that no rank can hold as it may be placed


class Room:
    """What a machine has for tables, and the words for it.

    Args:
        hardware: The machine.
        taken_bytes: What a rank holds beside them, where it computes.
    """

    def __init__(self, hardware: Hardware, *, taken_bytes: int) -> None:
        self.free = hardware.free_bytes(taken_bytes=taken_bytes)
        self.topology = hardware.topology(taken_bytes=taken_bytes)
        self.of_rank: Storage = self.topology.devices[0].storage
        self.num_ranks = hardware.world_size
        self._hardware, self._taken = hardware, taken_bytes
        self._where = f"the tables do not fit {hardware.world_size} x {hardware.device}"
        self._less = (
            f"{readable_bytes(hardware.rank_bytes)} less {hardware.reserve_share:.0%} in reserve and"
            f" {readable_bytes(taken_bytes)} for members, batches and what else is not a table"
        )

    def refusal(self) -> TablesDoNotFitError:
        """Where nothing is left."""
        error = TablesDoNotFitError(
            f"{self._where}: nothing of a rank is left for them ({self._less}); lower the batch, or take smaller"
            " members"
        )
        error.need_bytes = self._taken
        error.capacity_bytes = int(self._hardware.rank_bytes * (1 - self._hardware.reserve_share))
        return error

    def too_little(self, what: str, *, need: int, on_host: bool, remedy: str) -> TablesDoNotFitError:
        """Where a rank needs more than it has."""
        host = f" and {readable_bytes(self.of_rank.ddr)} of host memory" if on_host else ""
        error = TablesDoNotFitError(
            f"{self._where}: {what}, and a rank has {readable_bytes(self.free)} for tables ({self._less}){host};"
            f" {remedy}, or add ranks"
        )
        error.need_bytes, error.capacity_bytes = need, self.free + (self.of_rank.ddr if on_host else 0)
        return error


class TableChoices(EmbeddingEnumerator):
    """What the planner may choose from; refuses at once what no plan can put into the room.

    Args:
        room: What there is for tables.
        storage: What shards take.
        rows_per_rank: Rows of a rank's batch.
        constraints: Table name -> what the planner may choose.
    """

    def __init__(
        self,
        room: Room,
        *,
        storage: ShardStorage,
        rows_per_rank: int,
        constraints: dict[str, ParameterConstraints],
    ) -> None:
        speed = EmbeddingPerfEstimatorFactory.create(
            DEFAULT_PERF_ESTIMATOR, topology=room.topology, constraints=constraints
        )
        super().__init__(
            topology=room.topology, batch_size=rows_per_rank, constraints=constraints, estimator=[speed, storage]
        )
        self._room, self._of_tables = room, constraints
        self._on_host = any(name in HOST_MEMORY_KERNELS for one in constraints.values() for name in kernels_of(one))
        self._need = 0

    def enumerate(self, module: nn.Module, sharders: list[Any]) -> list[ShardingOption]:
        """As the planner calls it.

        Raises:
            TablesDoNotFitError: a table is too large for any rank, or all of them for all ranks.
        """
        found: list[ShardingOption] = super().enumerate(module, sharders)
        choices: dict[str, list[ShardingOption]] = {}
        for option in found:
            choices.setdefault(option.name, []).append(option)
        least = {
            table: min(map(_most_on_a_rank, options))
            for table, options in choices.items()
            if not any(all(shard.storage.fits_in(self._room.of_rank) for shard in one.shards) for one in options)
        }
        if least:
            raise self._too_large(max(least, key=lambda name: least[name]), least=least)
        self._need = sum(min(map(_total_of, options)) for options in choices.values())
        capacity = self._room.free + (self._room.of_rank.ddr if self._on_host else 0)
        if self._need > capacity * self._room.num_ranks:
            raise self._in_all("")
        return found

    def uneven(self) -> TablesDoNotFitError:
        """Why there is no plan although there is room in all."""
        return self._in_all(", which no spread that was tried puts into the room of every rank")

    def _too_large(self, table: str, *, least: Mapping[str, int]) -> TablesDoNotFitError:
        kinds = self._of_tables[table].sharding_types or []
        wider = f'let tables.*.features.{table.rpartition("/")[2]}.placement be "row_wise", '
        error = self._room.too_little(
            f"{table} takes at least {readable_bytes(least[table])} of a rank as {' or '.join(kinds)}",
            need=least[table],
            on_host=self._on_host,
            remedy=f"{'' if ShardingType.ROW_WISE.value in kinds else wider}lower tables.*.dim",
        )
        error.table = table
        return error

    def _in_all(self, uneven: str) -> TablesDoNotFitError:
        mean = -(-self._need // self._room.num_ranks)
        return self._room.too_little(
            f"with optimizer state and buffers they take at least {readable_bytes(self._need)},"
            f" {readable_bytes(mean)} a rank{uneven}",
            need=mean,
            on_host=self._on_host,
            remedy='lower tables.*.dim, take tables.*.optimizer = "rowwise_adagrad", give members shared tables',
        )


def _most_on_a_rank(option: ShardingOption) -> int:
    return max(shard.storage.hbm + shard.storage.ddr for shard in option.shards)


def _total_of(option: ShardingOption) -> int:
    return int(option.total_storage.hbm + option.total_storage.ddr)


def kernels_of(one: ParameterConstraints) -> Sequence[str]:
    """The kernels that a table may have."""
    return one.compute_kernels or ()
