"""Warnings of libraries that say nothing a user of this program can act on."""

from __future__ import annotations

import logging
import warnings

_LOGGERS = ("torchrec", "torch.fx._symbolic_trace", "torch.fx", "torch.distributed.checkpoint")
_MESSAGES = (
    "Please use DTensor instead",  # TorchRec's own shards
    r".*broadcast_buffers. is deprecated",  # TorchRec's wrapper of data-parallel tables
    r".*torch\.distributed\.\w+. is deprecated",  # gloo collectives inside TorchRec
    "HeuristicalStorageReservation is known",
    # The backward of data-parallel tables: tests compare it with plain PyTorch.
    "fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel",
    "TypedStorage is deprecated",
)


def silence() -> None:
    """Drops them for this process; errors still show."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger().addFilter(lambda record: "Sharding spec not found" not in record.getMessage())
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message)
