"""Rows of a study made from arrays."""

from __future__ import annotations

import numpy as np

from trainer.analysis.worth.study_rows import StudyRows


def made_rows(
    num_rows: int = 600, num_members: int = 3, *, seed: int = 0, block_rows: int = 7, spread: float = 0.6
) -> StudyRows:
    """Members whose logits are the truth and noise; merged is the mean logit."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(-1.0, 1.0, num_rows)
    labels = (draw.random(num_rows) < 1 / (1 + np.exp(-truth))).astype(np.int8)
    noise = draw.normal(0.0, spread, (num_rows, num_members)) * (1 + 0.2 * np.arange(num_members))
    logits = np.asfortranarray((truth[:, None] + noise).astype(np.float32))
    merged = logits.astype(np.float64).mean(axis=1)
    return StudyRows(
        members=tuple(f"m{index}" for index in range(num_members)),
        parts=("day_0",),
        labels=labels,
        logits=logits,
        merged_logits=merged.astype(np.float32),
        part=np.zeros(num_rows, np.int32),
        columns={},
        block_starts=np.arange(0, num_rows, block_rows),
        num_rows_total=num_rows,
    )
