"""Compares what was saved with what another layout made of it, tensor by tensor, without any process group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import storage
from trainer.analysis.reliability.reshard_layouts import Outcome
from trainer.checkpoints.manifest import STATE_NAME, CheckpointManifest, read_manifest
from trainer.checkpoints.state_files import StoredTensor, read_index, read_tensor

_SUM, _COLUMN_SUMS = "/sum", "/column_sums"
_MEAN_ROUNDING = 1e-6
_SLIGHT, _SLIGHT_SHARE = 2e-5, 1e-4  # rounding over a few steps; steps move weights by 1e-2 and more


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison found."""

    outcome: Outcome
    reason: str = ""
    most_apart: float = 0.0  # the largest difference of any value


class StoredState:
    """The state of a checkpoint.

    Args:
        folder: Of the checkpoint.
    """

    def __init__(self, folder: str) -> None:
        self.manifest: CheckpointManifest = read_manifest(folder)
        self._folder = storage.join(folder, STATE_NAME)
        self.index: Mapping[str, StoredTensor] = read_index(self._folder)

    def __getitem__(self, key: str) -> Tensor:
        return read_tensor(self._folder, key, index=self.index)

    def unlike_training(self) -> str:
        """What shows that it holds no trained state: a kind of tensor that is all zeros. Empty: nothing."""
        kinds: dict[str, bool] = {}
        for key in self.index:
            kind = key.rpartition("/" if key.startswith("optimizer/") else ".")[2]
            kinds[kind] = kinds.get(kind, False) or bool(self[key].any())
        return ", ".join(kind for kind, is_there in kinds.items() if not is_there)


def compare_loaded(saved: str, loaded: str) -> Comparison:
    """Compares a checkpoint with the one that was saved again from what was loaded of it.

    `equal`: the same tensors, bit for bit. `mean`: row-wise sums are the mean of the saved sums per column piece,
    weighted by the pieces' widths, and all others are bit-equal.
    """
    before, after = StoredState(saved), StoredState(loaded)
    merged = {key for key in after.index if key not in before.index and _pieces_of(key) in before.index}
    left = set(before.index) - set(after.index) - {_pieces_of(key) for key in merged}
    new = set(after.index) - set(before.index) - merged
    if left or new:
        return Comparison(outcome="FAILED", reason=f"lost: {sorted(left)[:3]}, new: {sorted(new)[:3]}")
    for key in after.index:
        ours = after[key]
        if key not in merged:
            if not _same_bits(before[key], ours):
                return Comparison(outcome="FAILED", reason=f"{key} differs", most_apart=_apart(before[key], ours))
        elif not torch.allclose(_mean_of_pieces(before, key), ours.double(), rtol=_MEAN_ROUNDING, atol=0.0):
            return Comparison(outcome="FAILED", reason=f"{key} is not the mean of its pieces")
    return Comparison(outcome="mean" if merged else "equal")


def compare_continued(one: str, other: str, *, start: str) -> Comparison:
    """Compares two runs that went on from the same checkpoint: equal to rounding, and further than the start."""
    left, right, begin = StoredState(one), StoredState(other), StoredState(start)
    apart = moved = 0.0
    if set(left.index) != set(right.index) or dict(left.manifest.progress) != dict(right.manifest.progress):
        return Comparison(outcome="FAILED", reason="other tensors or another progress")
    for key, mine, theirs in _both(left, right):
        if not torch.allclose(mine, theirs, atol=_SLIGHT, rtol=_SLIGHT_SHARE):
            return Comparison(outcome="FAILED", reason=f"{key} is another", most_apart=_apart(mine, theirs))
        apart = max(apart, _apart(mine, theirs))
        if key in begin.index:
            moved = max(moved, _apart(mine, begin[key]))
    if moved < 100 * _SLIGHT:
        return Comparison(outcome="FAILED", reason=f"nothing was trained: no value moved by more than {moved:g}")
    return Comparison(outcome="equal", most_apart=apart)


def _both(left: StoredState, right: StoredState) -> Iterator[tuple[str, Tensor, Tensor]]:
    for key in left.index:
        yield key, left[key], right[key]


def _pieces_of(key: str) -> str:
    return key.removesuffix(_SUM) + _COLUMN_SUMS if key.endswith(_SUM) else ""


def _mean_of_pieces(state: StoredState, key: str) -> Tensor:
    """From the definition, in double precision: [rows] of [pieces * rows]."""
    table = "/".join(key.split("/")[2:4])
    widths = torch.tensor([columns for _, columns in state.manifest.column_pieces[table]], dtype=torch.float64)
    of_piece = state[_pieces_of(key)].double().view(len(widths), -1)
    return (of_piece * widths[:, None]).sum(dim=0) / widths.sum()


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()


def _apart(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape or not one.numel():
        return float("nan") if one.shape != other.shape else 0.0
    return float((one.double() - other.double()).abs().max())
