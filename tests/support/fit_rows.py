"""Labels and members' logits drawn from a known model, for tests of merge rules."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.analysis.merge_fitting.fit_rows import FitRows


def fit_rows(labels: NDArray[np.integer], logits: NDArray[np.floating]) -> FitRows:
    """Rows of members m0, m1 ... with these logits [N, M]."""
    return FitRows(
        members=tuple(f"m{index}" for index in range(logits.shape[1])),
        labels=labels.astype(np.int8),
        logits=np.asfortranarray(logits, dtype=np.float32),
        num_rows_total=len(labels),
    )


def drawn_rows(num_rows: int, *, noise: tuple[float, ...], seed: int = 1) -> FitRows:
    """Labels of a normal true logit, and members that see it with that much normal noise; inf: noise alone."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=num_rows) * 1.2 - 1.0
    labels = draw.random(num_rows) < 1.0 / (1.0 + np.exp(-truth))
    columns = [
        draw.normal(size=num_rows) if np.isinf(scale) else truth + scale * draw.normal(size=num_rows) for scale in noise
    ]
    return fit_rows(labels, np.stack(columns, axis=1))
