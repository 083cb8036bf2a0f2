"""Loading: a checkpoint into live tensors, whatever ranks, plan and placements it was saved under."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from configs.errors import CheckpointError
from trainer import storage
from trainer.checkpoints.collective import one_sentence
from trainer.checkpoints.manifest import STATE_NAME, CheckpointManifest
from trainer.checkpoints.pieces import LoadPlanner, Pieces, State, pieces_of
from trainer.checkpoints.state_files import StateReader, StoredTensor, read_index
from trainer.votes import Ranks

SUM = "/sum"
COLUMN_SUMS = "/column_sums"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to load, and under which keys it lies in the checkpoint."""

    state: State  # key of this run -> live tensor
    keys: Mapping[str, str]  # key of this run -> key in the checkpoint
    column_pieces: Mapping[str, Sequence[Sequence[int]]]  # of this run's plan, as in the manifest

    @staticmethod
    def weights(model_state: Mapping[str, Tensor]) -> Wanted:
        """All of a model's weights and no optimizer state, for scoring."""
        state = {f"model/{key}": pieces_of(value) for key, value in model_state.items()}
        return Wanted(state=state, keys={key: key for key in state}, column_pieces={})


@dataclass(frozen=True, kw_only=True)
class _Merge:
    """A row-wise sum that was kept per piece of a row, read piece by piece and put together."""

    target: Tensor
    of_piece: tuple[Tensor, ...]
    widths: tuple[int, ...]

    def put(self) -> None:
        total = sum(piece * width for piece, width in zip(self.of_piece, self.widths, strict=True))
        assert isinstance(total, Tensor)
        self.target.copy_(total / sum(self.widths))


def load(manifest: CheckpointManifest, wanted: Wanted, *, ranks: Ranks, say: Callable[[str], None]) -> None:
    """Loads in place. All ranks must call this.

    A row-wise Adagrad sum that was kept per column piece becomes their mean, weighted by the pieces'
    widths: what row-wise Adagrad would have kept, had the pieces' sums been of whole rows.

    Raises:
        CheckpointError: a tensor is not in the checkpoint or of another shape, or would need sums per column piece
            that were never kept; on every rank.
    """
    folder = storage.join(manifest.folder, STATE_NAME)
    index = ranks.together(lambda: _index(folder))
    requests: dict[str, Pieces | Tensor] = {}
    merges: dict[str, list[_Merge]] = {}

    def ask() -> None:
        for key, value in wanted.state.items():
            source = wanted.keys[key]
            found = index.get(source)
            sums = source.removesuffix(SUM) + COLUMN_SUMS
            if key.endswith(COLUMN_SUMS):
                _check_same_pieces(key, source, manifest=manifest, wanted=wanted, found=found is not None)
            if found is None and key.endswith(SUM) and sums in index:
                requests[sums], merges[sums] = _merged(value, widths=_widths(manifest, sums))
            elif found is None or found.shape != tuple(value.size()):
                saved = "nothing" if found is None else f"a tensor of shape {list(found.shape)}"
                raise CheckpointError(
                    f"{manifest.folder}: {source}: {saved} in the checkpoint, where this run has one of shape"
                    f" {list(value.size())}; take a checkpoint of this model"
                )
            else:
                requests[source] = value

    ranks.together(ask)
    one_sentence(
        f"load {manifest.folder}",
        lambda: dcp.load(
            dict(requests),
            storage_reader=StateReader(folder),
            planner=LoadPlanner(),
            process_group=ranks.process_group,
        ),
    )
    for of_key in merges.values():
        for merge in of_key:
            merge.put()
    tables = sorted({_table(key) for keys in ranks.gather(sorted(merges)) for key in keys})
    if tables:
        some = f"{', '.join(tables[:3])}{' ...' if len(tables) > 3 else ''}"
        say(
            f"{len(tables)} tables ({some}) kept row-wise sums per column piece; each sum is now the mean of its"
            " pieces, weighted by their columns"
        )


def left_out(manifest: CheckpointManifest, wanted: Wanted, *, ranks: Ranks) -> list[str]:
    """Keys of the checkpoint that no rank asks for. All ranks must call this."""
    index = ranks.together(lambda: _index(storage.join(manifest.folder, STATE_NAME)))
    asked = {key for keys in ranks.gather(sorted(wanted.keys.values())) for key in keys}
    asked |= {key.removesuffix(SUM) + COLUMN_SUMS for key in asked if key.endswith(SUM)}
    # Sums of whole rows where pieces' are wanted: `load` refuses that in words of its own.
    asked |= {key.removesuffix(COLUMN_SUMS) + SUM for key in asked if key.endswith(COLUMN_SUMS)}
    return sorted(set(index) - asked)


def _index(folder: str) -> dict[str, StoredTensor]:
    try:
        return read_index(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: its index cannot be read ({error}); take another checkpoint") from error


def _table(key: str) -> str:
    """The table in a key like optimizer/tables/GROUP/FEATURE/sum."""
    return "/".join(key.split("/")[2:4])


def _widths(manifest: CheckpointManifest, key: str) -> tuple[int, ...]:
    return tuple(columns for _, columns in manifest.column_pieces[_table(key)])


def _check_same_pieces(key: str, source: str, *, manifest: CheckpointManifest, wanted: Wanted, found: bool) -> None:
    ours = [list(piece) for piece in wanted.column_pieces[_table(key)]]
    saved = [list(piece) for piece in manifest.column_pieces.get(_table(source), [])]
    if not found or ours != saved:
        cut = f"cut into columns {saved}" if found else "one sum for each whole row"
        raise CheckpointError(
            f"tables {_table(key)}: rowwise_adagrad keeps a sum per column piece under this plan ({ours}), and"
            f" {manifest.folder} has {cut}, from which those cannot be told; give the table the old placement, or one"
            " that keeps rows whole"
        )


def _merged(value: Pieces | Tensor, *, widths: tuple[int, ...]) -> tuple[Pieces, list[_Merge]]:
    """What to read for row-wise sums [rows] from sums kept piece after piece [pieces * rows]."""
    num_rows = value.size()[0]
    places = value.parts if isinstance(value, Pieces) else {(0,): value}
    parts: dict[tuple[int, ...], Tensor] = {}
    merges = []
    for (first_row, *_), target in places.items():
        of_piece = tuple(torch.empty(target.shape, dtype=target.dtype) for _ in widths)
        parts |= {(piece * num_rows + first_row,): buffer for piece, buffer in enumerate(of_piece)}
        merges.append(_Merge(target=target, of_piece=of_piece, widths=widths))
    return Pieces(shape=(len(widths) * num_rows,), parts=parts), merges
