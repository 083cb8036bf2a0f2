"""The sharder of embedding bag collections, with the placements that the stock one leaves out on CPU."""

from __future__ import annotations

from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.types import ShardingType

from sharding.constraints import KERNELS, SHARDING_TYPES


class TableSharder(EmbeddingBagCollectionSharder):
    """Offers every placement on every device.

    The stock list leaves out the row-wise kinds on CPU, since gloo once had no reduce_scatter.
    """

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Placements the planner may use."""
        return [kind.value for kind in SHARDING_TYPES.values()]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """Data-parallel tables are dense parameters; all others update in the fused backward."""
        if sharding_type == ShardingType.DATA_PARALLEL.value:
            return [EmbeddingComputeKernel.DENSE.value]
        if compute_device_type == "cuda":
            return [kernel.value for kernel in KERNELS.values()]
        return [EmbeddingComputeKernel.FUSED.value]
