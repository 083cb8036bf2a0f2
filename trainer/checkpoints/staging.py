"""Staging: a copy of the state in host memory, from which a checkpoint is written while training goes on."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.checkpoints.pieces import Pieces, State


class Staging:
    """Buffers of the state's size, made once and filled again for every checkpoint."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    @torch.no_grad()
    def copy(self, state: State) -> State:
        """A copy of the state as it is now; it stands until the next call."""
        copies: dict[str, Pieces | Tensor] = {}
        on_gpu = False
        for key, value in state.items():
            if isinstance(value, Pieces):
                parts = {offsets: self._copy((key, offsets), part) for offsets, part in value.parts.items()}
                copies[key] = Pieces(shape=value.shape, parts=parts)
                on_gpu |= any(part.is_cuda for part in value.parts.values())
            else:
                copies[key] = self._copy((key, ()), value)
                on_gpu |= value.is_cuda
        if on_gpu:
            torch.cuda.synchronize()
        return copies

    def _copy(self, place: tuple[str, tuple[int, ...]], value: Tensor) -> Tensor:
        buffer = self._buffers.get(place)
        if buffer is None or (buffer.shape, buffer.dtype) != (value.shape, value.dtype):
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self._buffers[place] = buffer
        return buffer.copy_(value, non_blocking=True)
