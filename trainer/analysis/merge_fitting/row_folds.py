"""Folds of rows for cross-fitting: blocks of neighbouring rows, so that what is alike stays together.

Neighbouring rows of a log share users and hours. Were they dealt one by one, a rule would be judged on rows much like
those that it was fitted on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from trainer.predictions.row_hash import hash_rows

MOST_BLOCK_ROWS = 65_536
_LEAST_BLOCKS = 20  # a fold, where there are as many rows


def deal_folds(num_rows: int, *, folds: int) -> NDArray[np.int8]:
    """The fold of each row, [N]: blocks, in the order of a hash of their number, are dealt to the folds in turn.

    Raises:
        DataError: fewer rows than folds, or fewer than two folds.
    """
    if folds < 2 or folds > 127:
        raise DataError(f"{folds} folds: take from 2 to 127")
    if num_rows < folds:
        raise DataError(f"{num_rows} rows in {folds} folds: there are too few rows to judge a fit; take more rows")
    block_rows = min(MOST_BLOCK_ROWS, max(1, num_rows // (folds * _LEAST_BLOCKS)))
    block_N = np.arange(num_rows) // block_rows
    num_blocks = int(block_N[-1]) + 1
    hashes = [hash_rows("fold", np.array([block])) for block in range(num_blocks)]
    fold_of_block = np.empty(num_blocks, dtype=np.int8)
    fold_of_block[np.argsort(hashes)] = np.arange(num_blocks) % folds
    return fold_of_block[block_N]
