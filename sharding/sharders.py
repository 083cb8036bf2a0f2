"""The sharder of embedding bag collections, with the placements that the stock one leaves out on CPU."""

from __future__ import annotations

from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import ShardingType


class TableSharder(EmbeddingBagCollectionSharder):
    """Offers row-wise on CPU too (gloo has reduce_scatter; the stock list predates it), and one kernel a kind."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Placements the planner may use."""
        kinds = super().sharding_types(compute_device_type)
        return kinds if ShardingType.ROW_WISE.value in kinds else [*kinds, ShardingType.ROW_WISE.value]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """Data-parallel tables are dense parameters; all others update in the fused backward."""
        if sharding_type == ShardingType.DATA_PARALLEL.value:
            return [EmbeddingComputeKernel.DENSE.value]
        return [EmbeddingComputeKernel.FUSED.value]
