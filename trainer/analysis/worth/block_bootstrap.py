"""The paired block bootstrap: intervals of figures by drawing blocks of neighbouring rows with replacement.

Neighbouring rows of a log are alike (one user, one hour), so blocks are drawn, not rows (Künsch, Annals of Statistics
1989; here blocks do not overlap: Carlstein 1986). Every column is judged on the same drawn blocks, so differences are
paired. Figures come from sums over blocks; AUC from counts of positives and negatives over bins of about equally many
rows, by which only the draws' deviations are taken: the figure itself is exact. The predictions are held fixed: the
intervals say how far other rows of this kind would move a figure, not how far another training would.

Legend: N rows, b blocks, B replicates, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.intervals import Interval
from trainer.analysis.worth.study_rows import StudyRows
from trainer.metrics.exact import exact_auc

NUM_REPLICATES = 1_000
FIGURES = ("log_loss_nats", "ne", "brier", "calibration", "auc")
_NUM_BINS = 1_024


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """How often each block is drawn."""

    counts: NDArray[np.float64]  # [B, b]

    def sums(self, by_block: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sums [B, ...] over the drawn blocks of sums by block [b, ...]."""
        return np.tensordot(self.counts, by_block, axes=(1, 0))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure, and what it was in each replicate."""

    value: float
    replicates: NDArray[np.float64]  # [B]

    def __sub__(self, other: Drawn) -> Drawn:
        return Drawn(value=self.value - other.value, replicates=self.replicates - other.replicates)

    @property
    def standard_error(self) -> float:
        """The standard deviation over replicates."""
        return float(np.nanstd(self.replicates, ddof=1))

    def interval(self, *, confidence: float = 0.95) -> Interval:
        """The percentile interval; replicates in which the figure is not defined are left out."""
        known = self.replicates[np.isfinite(self.replicates)]
        if not len(known):
            return Interval(value=self.value, low=float("nan"), high=float("nan"))
        low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(value=self.value, low=float(low), high=float(high))


def draw_blocks(num_blocks: int, *, seed: int, num_replicates: int = NUM_REPLICATES) -> Replicates:
    """Draws as many blocks as there are, with replacement, for each replicate."""
    draw = np.random.default_rng(seed)
    counts = draw.multinomial(num_blocks, np.full(num_blocks, 1.0 / num_blocks), size=num_replicates)
    return Replicates(counts=counts.astype(np.float64))


def figures_of_column(
    rows: StudyRows,
    replicates: Replicates,
    *,
    losses: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    scores: NDArray[np.floating],
) -> Mapping[str, Drawn]:
    """Figure -> its value and replicates, of one column.

    Args:
        rows: The rows.
        replicates: The drawn blocks.
        losses: Log loss of each row [N], nats.
        probabilities: [N].
        scores: What AUC ranks by, [N]: logits, which are apart where probabilities are 0 or 1.
    """
    labels = rows.labels
    ends = np.diff(rows.block_starts, append=rows.num_rows)
    by_block = np.stack(
        [
            ends,
            rows.by_block(labels),
            rows.by_block(losses),
            rows.by_block(probabilities),
            rows.by_block((probabilities - labels) ** 2),
        ],
        axis=1,
    )
    found = _ratios(by_block.sum(axis=0)[None])
    drawn = _ratios(replicates.sums(by_block))
    figures = {name: Drawn(value=float(found[name][0]), replicates=drawn[name]) for name in FIGURES[:-1]}
    return figures | {"auc": _auc(rows, replicates, scores)}


def simultaneous_half_widths(drawn: list[Drawn], *, confidence: float = 0.95) -> list[float]:
    """Half-widths that hold for all these figures at once: the largest standardised deviation of a replicate.

    Source: the max-t bootstrap (Romano & Wolf, Econometrica 2005).
    """
    errors = np.array([one.standard_error for one in drawn])
    moving = errors > 0
    if not moving.any():
        return [0.0] * len(drawn)
    deviations = np.stack([np.abs(one.replicates - one.value) for one in drawn], axis=1)[:, moving] / errors[moving]
    critical = float(np.nanquantile(deviations.max(axis=1), confidence))
    return [critical * float(error) for error in errors]


def _ratios(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Figures [B] of sums [B, 5]."""
    num_rows, positives, losses, probabilities, squares = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = positives / num_rows
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        loss = losses / num_rows
        return {
            "log_loss_nats": loss,
            "ne": loss / entropy,
            "brier": squares / num_rows,
            "calibration": probabilities / np.where(positives > 0, positives, np.nan),
        }


def _auc(rows: StudyRows, replicates: Replicates, scores: NDArray[np.floating]) -> Drawn:
    edges = np.quantile(scores, np.linspace(0, 1, _NUM_BINS + 1)[1:-1])
    bins = np.searchsorted(edges, scores, side="right")
    cells = rows.block_of_rows() * _NUM_BINS + bins
    counts = []
    for label in (0, 1):
        by_block = np.bincount(cells[rows.labels == label], minlength=len(rows.block_starts) * _NUM_BINS)
        counts.append(by_block.reshape(-1, _NUM_BINS).astype(np.float32))
    drawn = [replicates.counts.astype(np.float32) @ one for one in counts]
    every = [one.sum(axis=0, dtype=np.float64)[None] for one in counts]
    exact = exact_auc(rows.labels, scores)
    return Drawn(value=exact, replicates=_binned_auc(*drawn) + (exact - float(_binned_auc(*every)[0])))


def _binned_auc(negatives: NDArray[np.floating], positives: NDArray[np.floating]) -> NDArray[np.float64]:
    """AUC [B] of counts [B, bins]; rows of one bin are ties."""
    negatives, positives = negatives.astype(np.float64), positives.astype(np.float64)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return (positives * below).sum(axis=1) / (positives.sum(axis=1) * negatives.sum(axis=1))
