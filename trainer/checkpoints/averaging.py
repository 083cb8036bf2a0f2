"""Averaging: the weights of several checkpoints of one model as a new checkpoint.

With w_1 (the oldest) ... w_n (the newest) the weights of n checkpoints, the mean is the sum of c_k w_k:

- sma: c_k = 1/n, the equal weights of Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
  Generalization", UAI 2018 (arXiv 1803.05407), whose running form is w <- (w n + w_new)/(n + 1).
- ema: m_1 = w_1, m_k = d m_(k-1) + (1 - d) w_k with the decay d, as in Tarvainen and Valpola, "Mean teachers are
  better role models", NeurIPS 2017 (arXiv 1703.01780); so c_1 = d^(n-1) and c_k = (1 - d) d^(n-k).
- wma: c_k = k / (n (n + 1)/2), weights that rise linearly; compared with the other two for checkpoints of one run in
  Li et al., "Model Merging in Pre-training of Large Language Models", 2025 (arXiv 2505.12082).

Sums are in float64, read and written block by block: memory is a few blocks, whatever the tables' size. Tensors of
integers are no weights: the newest one's are kept. Running statistics of batch norm are averaged like weights, unless
others are given in their place (trainer/batch_norm_statistics.py takes them anew). Optimizer state is left out, since a
mean of weights was reached by no optimizer. The dictionary must be the same, like all of the model; seeds need not be.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from configs.errors import CheckpointError, ConfigError
from trainer import storage
from trainer.checkpoints.manifest import (
    PLAN_NAME,
    RUN_NAME,
    STATE_NAME,
    CheckpointManifest,
    proof_of,
    write_manifest,
)
from trainer.checkpoints.matching import model_differences
from trainer.checkpoints.state_files import INDEX_NAME, MOST_FILE_BYTES, StoredPart, StoredTensor, write_index
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.checkpoints.tensor_files import write_tensors
from trainer.checkpoints.verification import Advance

Rule = Literal["sma", "ema", "wma"]
RULES: tuple[Rule, ...] = get_args(Rule)


def coefficients(rule: Rule, count: int, *, decay: float | None = None) -> tuple[float, ...]:
    """What each of `count` checkpoints weighs, the oldest first; they add up to 1.

    Raises:
        ConfigError: ema has no decay between 0 and 1, or another rule has one.
    """
    if rule != "ema":
        if decay is not None:
            raise ConfigError(f"--decay: {decay} is for --rule ema; remove it")
        shares = [1.0] * count if rule == "sma" else [float(place) for place in range(1, count + 1)]
        return tuple(share / sum(shares) for share in shares)
    if decay is None or not 0 < decay < 1:
        raise ConfigError(f"--decay: {decay} is not between 0 and 1; --rule ema needs one, as --decay 0.8")
    newer = [(1 - decay) * decay ** (count - place) for place in range(2, count + 1)]
    return (decay ** (count - 1), *newer)


@dataclass(frozen=True, kw_only=True)
class Average:
    """What to average, and how.

    Attributes:
        sources: The oldest first.
        shares: What each weighs.
        how: The rule and its decay, for the manifest.
    """

    sources: tuple[StoredCheckpoint, ...]
    shares: tuple[float, ...]
    how: dict[str, Any]

    @staticmethod
    def of(folders: Sequence[str], *, rule: Rule, decay: float | None = None) -> Average:
        """Checkpoints by their folders, put in the order of their steps; those of one step stay as given.

        Raises:
            CheckpointError: there are less than two, one is there twice, or they are of different models.
            ConfigError: the decay is refused.
        """
        shares = coefficients(rule, len(folders), decay=decay)
        if len(folders) < 2:
            raise CheckpointError(f"{len(folders)} checkpoint(s) to average; name at least two")
        sources = sorted((StoredCheckpoint.open(folder) for folder in folders), key=lambda s: s.manifest.step)
        for older, newer in itertools.combinations(sources, 2):
            if storage.same_place(older.folder, newer.folder):
                raise CheckpointError(f"{newer.folder}: given twice; it would count twice")
        for source in sources[:-1]:
            _refuse_other_model(source, sources[-1])
        how: dict[str, Any] = {"rule": rule} | ({} if decay is None else {"decay": decay})
        return Average(sources=tuple(sources), shares=shares, how=how)

    @property
    def num_bytes(self) -> int:
        """Bytes of weights to read."""
        return sum(source.num_bytes(source.weights) for source in self.sources)

    def blocks(
        self, key: str, *, rows: range | None = None, advance: Advance = lambda _bytes: None
    ) -> Iterator[Tensor]:
        """The mean of a tensor's rows in order, all or those asked for, in blocks of a few MiB.

        Raises:
            CheckpointError: they cannot be read, or a mean is not finite.
        """
        newest = self.sources[-1]
        dtype = newest.index[key].dtype
        if not dtype.is_floating_point:
            yield from newest.blocks(key, rows=rows)
            return
        oldest, *others = (source.blocks(key, rows=rows) for source in self.sources)
        for block in oldest:
            mean = block.double().mul_(self.shares[0])
            for stream, share in zip(others, self.shares[1:], strict=True):
                mean.add_(next(stream), alpha=share)  # one block after the other: no two are in memory
            if not torch.isfinite(mean.sum()):
                raise CheckpointError(f"{key}: not finite in one of the checkpoints; leave that one out")
            advance(len(self.sources) * block.numel() * block.element_size())
            yield mean.to(dtype)

    @property
    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        pairs = zip(self.sources, self.shares, strict=True)
        of = [{"folder": source.folder, "step": source.manifest.step, "share": share} for source, share in pairs]
        return self.how | {"of": of}


def _refuse_other_model(source: StoredCheckpoint, newest: StoredCheckpoint) -> None:
    ours, theirs = newest.manifest, source.manifest
    problems = model_differences(theirs.model, ours.model, theirs="the first", ours="the second")
    for key in sorted({*source.weights, *newest.weights}):
        shapes = [None if (found := of.index.get(key)) is None else found.shape for of in (source, newest)]
        if shapes[0] != shapes[1] and len(problems) < 8:
            problems.append(f"{key}: {shapes[0]} in the first, {shapes[1]} in the second")
        elif None not in shapes and source.index[key].dtype != newest.index[key].dtype:
            problems.append(f"{key}: another type")
    if problems:
        raise CheckpointError(
            f"{theirs.folder} and {ours.folder} are of different models, which have no mean:\n  "
            + "\n  ".join(problems)
        )


def refuse_existing(folder: str) -> None:
    """Refuses to write where something is.

    Raises:
        CheckpointError: the folder holds something, or is a file.
    """
    if storage.names(folder) or storage.is_file(folder):
        raise CheckpointError(f"--output: {folder!r} is there already; name a new folder")


def write_average(
    average: Average,
    *,
    folder: str,
    advance: Advance,
    instead: Mapping[str, Tensor] | None = None,
    most_file_bytes: int = MOST_FILE_BYTES,
) -> None:
    """Writes the mean as a checkpoint: weights, run.toml and plan.json of the newest, the manifest last.

    Args:
        average: What to average.
        folder: A new folder.
        advance: Told of the bytes that were read.
        instead: Key -> what takes the place of its mean.
        most_file_bytes: Of a file of weights, about.

    Raises:
        CheckpointError: the folder holds something, or a mean is not finite.
    """
    refuse_existing(folder)
    storage.make_folder(storage.join(folder, STATE_NAME))
    try:
        _write(average, folder=folder, advance=advance, instead=instead or {}, most_file_bytes=most_file_bytes)
    except BaseException:  # so that the same command can start again
        with contextlib.suppress(OSError):
            storage.remove_tree(folder)
        raise


def _write(
    average: Average, *, folder: str, advance: Advance, instead: Mapping[str, Tensor], most_file_bytes: int
) -> None:
    def blocks(piece: _Piece) -> Iterator[Tensor]:
        if piece.key in instead:
            given = instead[piece.key]
            return iter([given if piece.rows is None else given[piece.rows.start : piece.rows.stop]])
        return average.blocks(piece.key, rows=piece.rows, advance=advance)

    newest, state = average.sources[-1], storage.join(folder, STATE_NAME)
    files: dict[str, dict[str, Any]] = {}
    places: dict[str, list[StoredPart]] = {}
    for number, pieces in enumerate(_files_of(newest, most_bytes=most_file_bytes)):
        name = f"average_{number}.safetensors"
        written = write_tensors(
            storage.join(state, name),
            {piece.name: (newest.index[piece.key].dtype, piece.sizes) for piece in pieces},
            itertools.chain.from_iterable(map(blocks, pieces)),
        )
        files[storage.join(STATE_NAME, name)] = written.proof
        for piece in pieces:
            place = StoredPart(
                file=name, first_byte=written.first_bytes[piece.name], offsets=piece.offsets, sizes=piece.sizes
            )
            places.setdefault(piece.key, []).append(place)
    tensors = {
        key: StoredTensor(dtype=newest.index[key].dtype, shape=newest.index[key].shape, parts=tuple(parts))
        for key, parts in places.items()
    }
    files[storage.join(STATE_NAME, INDEX_NAME)] = write_index(state, tensors)
    for name in (RUN_NAME, PLAN_NAME):
        storage.write_text(storage.join(folder, name), storage.read_text(storage.join(newest.folder, name)))
        files[name] = proof_of(storage.join(folder, name))
    write_manifest(
        CheckpointManifest(
            folder=folder,
            step=newest.manifest.step,
            world_size=1,
            progress=newest.manifest.progress,
            model=newest.manifest.model,
            data=newest.manifest.data,
            learning=newest.manifest.learning,
            quality=None,
            column_pieces={},
            files=files,
            averaged=average.as_json,
        )
    )


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Rows of a tensor that go into one file."""

    key: str
    shape: tuple[int, ...]  # of the whole tensor
    rows: range | None  # None: it has no dimension

    @property
    def offsets(self) -> tuple[int, ...]:
        return () if self.rows is None else (self.rows.start, *[0] * (len(self.shape) - 1))

    @property
    def sizes(self) -> tuple[int, ...]:
        return () if self.rows is None else (len(self.rows), *self.shape[1:])

    @property
    def name(self) -> str:
        return self.key if self.sizes == self.shape else f"{self.key}@{','.join(map(str, self.offsets))}"


def _files_of(source: StoredCheckpoint, *, most_bytes: int) -> Iterator[list[_Piece]]:
    """The weights in order of their keys, cut into files of about `most_bytes`."""
    bucket: list[_Piece] = []
    size = 0
    for key in sorted(source.weights):
        for piece in _pieces_of(key, source.index[key], most_bytes=most_bytes):
            num_bytes = torch.Size(piece.sizes).numel() * source.index[key].dtype.itemsize
            if bucket and size + num_bytes > most_bytes:
                yield bucket
                bucket, size = [], 0
            bucket.append(piece)
            size += num_bytes
    if bucket:
        yield bucket


def _pieces_of(key: str, tensor: StoredTensor, *, most_bytes: int) -> Iterator[_Piece]:
    if not tensor.shape:
        yield _Piece(key=key, shape=(), rows=None)
        return
    num_rows, *row_shape = tensor.shape
    rows_of_piece = max(1, most_bytes // max(torch.Size(row_shape).numel() * tensor.dtype.itemsize, 1))
    for start in range(0, max(num_rows, 1), rows_of_piece):
        yield _Piece(key=key, shape=tensor.shape, rows=range(start, min(start + rows_of_piece, num_rows)))
