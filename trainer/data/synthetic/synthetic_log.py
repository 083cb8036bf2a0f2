"""The planted teacher's rows as text lines of a Criteo click log, and the best figures a model can reach on them.

A log is made in chunks, each a function of the teacher and its row numbers alone, so any process can make any chunk.

Legend: N rows of a chunk.
"""

from __future__ import annotations

import functools
import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.data.criteo import NUM_DENSE, NUM_SPARSE
from trainer.data.synthetic.teacher import Teacher, TeacherRows
from trainer.metrics.exact import BinaryMetrics, from_sums, ranking_of

CHUNK_ROWS = 65_536
NUM_BINS = 1 << 17
LOGIT_LIMIT = 24.0

_GZIP_LEVEL = 1
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib: with the header and trailer of gzip, without time and name
_NO_BYTE = 0  # fills the fixed-width lines where a field is shorter; taken out at last
_TAB, _NEWLINE, _MINUS, _ZERO = b"\t\n-0"
_INTEGER_WIDTH = 1 + 1 + 8  # tab, sign, digits
_HEX_WIDTH = 1 + 8
_LINE_WIDTH = 1 + NUM_DENSE * _INTEGER_WIDTH + NUM_SPARSE * _HEX_WIDTH + 1
_LARGEST_INTEGER = 10**8 - 1

Compression = Literal["gz", "none"]
AucMethod = Literal["exact", "bins"]


@dataclass(frozen=True, kw_only=True)
class ChunkScores:
    """What the true probability scores on a chunk: sums, and what its AUC is made of."""

    num_rows: int
    label_sum: int
    loss_sum: float
    probability_sum: float
    brier_sum: float
    labels: NDArray[np.int32] | None  # [N], for the exact AUC
    logits: NDArray[np.float64] | None  # [N]
    bins: NDArray[np.int64] | None  # rows by label and bin of the logit, flat [2 * NUM_BINS]


@dataclass(frozen=True, kw_only=True)
class LogChunk:
    """Lines of a log, compressed where asked for, and the scores on them."""

    content: bytes
    num_text_bytes: int
    scores: ChunkScores


def make_chunk(
    teacher: Teacher, *, first_row: int, num_rows: int, compression: Compression, auc: AucMethod
) -> LogChunk:
    """Makes rows `first_row` and after. Compressed chunks are gzip members: put together they are one gzip file."""
    rows = teacher.rows(np.arange(first_row, first_row + num_rows))
    text = lines(rows, teacher)
    content = text
    if compression == "gz":
        packer = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)
        content = packer.compress(text) + packer.flush()
    return LogChunk(content=content, num_text_bytes=len(text), scores=_scores(rows, auc))


def lines(rows: TeacherRows, teacher: Teacher) -> bytes:
    """The rows as lines: label, integers, hashes as eight hex digits, separated by tabs; missing is empty."""
    num_rows = len(rows.label)
    wide = np.zeros((num_rows, _LINE_WIDTH), np.uint8)
    wide[:, 0] = rows.label + _ZERO
    column = 1
    for feature in range(NUM_DENSE):
        wide[:, column] = _TAB
        raw, there = rows.dense_raw[:, feature], ~rows.dense_missing[:, feature]
        wide[:, column + 1] = np.where(there & (raw < 0), _MINUS, _NO_BYTE)
        wide[:, column + 2 : column + _INTEGER_WIDTH] = _digits(np.abs(raw)) * there[:, None]
        column += _INTEGER_WIDTH
    for feature in range(NUM_SPARSE):
        wide[:, column] = _TAB
        index = rows.sparse_index[:, feature]
        hashes = teacher.hashes(feature, np.maximum(index, 0))
        wide[:, column + 1 : column + _HEX_WIDTH] = _hex(hashes) * (index >= 0)[:, None]
        column += _HEX_WIDTH
    wide[:, column] = _NEWLINE
    return wide.tobytes().translate(None, bytes([_NO_BYTE]))


def _digits(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decimal text [N, 8] of numbers from 0 to 99,999,999, without leading zeros, filled up on the left."""
    assert not len(values) or int(values.max()) <= _LARGEST_INTEGER
    bare, padded = _four_digits()
    upper, lower = np.divmod(values, 10_000)
    text = np.zeros((len(values), 2), np.uint32)
    text[:, 0] = np.where(upper > 0, bare[upper], 0)
    text[:, 1] = np.where(upper > 0, padded[lower], bare[lower])
    return text.view(np.uint8).reshape(-1, 8)


def _hex(values: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Text [N, 8] of 32-bit numbers in hex digits."""
    table = _four_hex_digits()
    text = np.empty((len(values), 2), np.uint32)
    text[:, 0] = table[values >> np.uint32(16)]
    text[:, 1] = table[values & np.uint32(0xFFFF)]
    return text.view(np.uint8).reshape(-1, 8)


@functools.cache
def _four_digits() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The four bytes of 0 .. 9999 as one word each: with zero bytes, and with the digit 0, in front."""
    bare = b"".join(str(number).encode().rjust(4, bytes([_NO_BYTE])) for number in range(10_000))
    padded = b"".join(b"%04d" % number for number in range(10_000))
    return np.frombuffer(bare, np.uint32), np.frombuffer(padded, np.uint32)


@functools.cache
def _four_hex_digits() -> NDArray[np.uint32]:
    return np.frombuffer(b"".join(b"%04x" % number for number in range(1 << 16)), np.uint32)


def _scores(rows: TeacherRows, auc: AucMethod) -> ChunkScores:
    exact = auc == "exact"
    probability = np.exp(-np.logaddexp(0.0, -rows.logit))
    return ChunkScores(
        num_rows=len(rows.label),
        label_sum=int(rows.label.sum()),
        loss_sum=float((np.logaddexp(0.0, rows.logit) - rows.label * rows.logit).sum()),
        probability_sum=float(probability.sum()),
        brier_sum=float(np.square(probability - rows.label).sum()),
        labels=rows.label if exact else None,
        logits=rows.logit if exact else None,
        bins=None if exact else _bins(rows),
    )


def _bins(rows: TeacherRows) -> NDArray[np.int64]:
    scaled = (rows.logit / LOGIT_LIMIT + 1.0) * (NUM_BINS / 2)
    place = np.clip(scaled, 0, NUM_BINS - 1).astype(np.int64) + NUM_BINS * rows.label.astype(np.int64)
    return np.bincount(place, minlength=2 * NUM_BINS)


class Ceiling:
    """Adds up the scores of a day's chunks, in their order; of binned ones in memory that does not grow."""

    def __init__(self) -> None:
        self._num_rows = self._label_sum = 0
        self._loss_sum = self._probability_sum = self._brier_sum = 0.0
        self._labels: list[NDArray[np.int32]] = []
        self._logits: list[NDArray[np.float64]] = []
        self._bins: NDArray[np.int64] | None = None

    def add(self, scores: ChunkScores) -> None:
        """Adds a chunk's."""
        self._num_rows += scores.num_rows
        self._label_sum += scores.label_sum
        self._loss_sum += scores.loss_sum
        self._probability_sum += scores.probability_sum
        self._brier_sum += scores.brier_sum
        if scores.bins is not None:
            self._bins = scores.bins if self._bins is None else self._bins + scores.bins
        elif scores.labels is not None and scores.logits is not None:
            self._labels.append(scores.labels)
            self._logits.append(scores.logits)

    def as_json(self) -> dict[str, Any]:
        """The day's figures, how its AUC was found, and how far that can be from the exact one."""
        if self._bins is None:
            ranking = ranking_of(np.concatenate(self._labels), np.concatenate(self._logits))
            auc, auprc, error = ranking.auc, ranking.auprc, 0.0
        else:
            (auc, error), auprc = _bracketed_auc(self._bins.reshape(2, NUM_BINS)), math.nan
        metrics: BinaryMetrics = from_sums(
            num_rows=self._num_rows,
            label_sum=float(self._label_sum),
            loss_sum=self._loss_sum,
            probability_sum=self._probability_sum,
            brier_sum=self._brier_sum,
            auc=auc,
            auprc=auprc,
        )
        method = "exact" if self._bins is None else f"{NUM_BINS} bins of the logit"
        return {**metrics.as_json(), "auc_method": method, "auc_error": error if math.isfinite(error) else None}


def _bracketed_auc(counts: NDArray[np.int64]) -> tuple[float, float]:
    """AUC from rows by label and bin [2, K], and half the width of what it lies in: pairs of one bin count half."""
    negatives, positives = counts.astype(np.float64)
    pairs = float(negatives.sum() * positives.sum())
    if pairs == 0:
        return math.nan, math.nan
    below = negatives.cumsum() - negatives
    sure, unknown = float((positives * below).sum()), float((positives * negatives).sum())
    return (sure + unknown / 2) / pairs, unknown / 2 / pairs
