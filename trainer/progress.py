"""Progress: how far a run is; rows trained, not prefetched."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from configs.interval_schema import Until


@dataclass
class Progress:
    """Where training stands. Everything in it is saved and restored."""

    step: int = 0
    epoch: int = 0
    row: int = 0  # rows trained of this epoch
    rows_total: int = 0

    def advance(self, rows: int, *, epoch_rows: int) -> None:
        """Counts one trained global batch."""
        self.step += 1
        self.row += rows
        self.rows_total += rows
        if self.row >= epoch_rows:
            self.epoch += 1
            self.row = 0

    def steps_left(self, until: Until, *, epoch_rows: int, batch_size: int) -> int:
        """Steps from here to the end of the run."""
        if until.steps is not None:
            return max(0, until.steps - self.step)
        assert until.epochs is not None
        whole_epochs = until.epochs - self.epoch - 1
        if whole_epochs < 0:
            return 0
        return -(-(epoch_rows - self.row) // batch_size) + whole_epochs * -(-epoch_rows // batch_size)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
