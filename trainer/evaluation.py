"""Evaluation of every member and of the merge on held-out rows while training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import nn

from modules.merge import MERGED, merge
from trainer.data.reading.loading import BatchReader
from trainer.data.reading.order import RowOrder
from trainer.data.reading.prefetch import prefetched
from trainer.data.reading.source import RowSource
from trainer.metrics.meters import LogitMeter, MeteredColumn
from trainer.runtime import Runtime


class Evaluator:
    """Evaluates a model on a source's rows, in file order.

    Args:
        source: The held-out rows.
        batch_size: Rows a step over all ranks.
        member_names: In the order of the logits.
        rule: The merge rule.
        runtime: This process.
        prefetch_batches: Batches made ahead in a thread.
    """

    def __init__(
        self,
        *,
        source: RowSource,
        batch_size: int,
        member_names: Sequence[str],
        rule: str,
        runtime: Runtime,
        prefetch_batches: int = 0,
    ) -> None:
        self._prefetch_batches = prefetch_batches
        self._order = RowOrder(num_rows=source.num_rows)
        self._reader = BatchReader(
            source=source, batch_size=batch_size, rank=runtime.rank, world_size=runtime.world_size
        )
        self._columns = (*member_names, MERGED)
        self._rule = rule
        self._runtime = runtime
        self._kept: dict[str, list[torch.Tensor]] = {}  # member that no longer changes -> its logits, batch by batch

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        *,
        settled: Collection[str] = (),
        skip: Callable[[Collection[str]], None] = lambda _names: None,
    ) -> dict[str, MeteredColumn]:
        """Figures by column (members, then merged). All ranks must call this; the model is left in training mode.

        Args:
            model: The task.
            settled: Members that no longer change. Their logits are kept, 4 bytes a row, and computed once.
            skip: Has the model leave members out of evaluations.
        """
        known = {name for name in settled if name in self._kept}
        for name in set(settled) - known:
            self._kept[name] = []
        skip(known)
        try:
            return self._evaluate(model, known=known)
        finally:
            skip(())

    def _evaluate(self, model: nn.Module, *, known: Collection[str]) -> dict[str, MeteredColumn]:
        model.eval()
        meter = LogitMeter(self._columns, device=self._runtime.device)
        device = self._runtime.device
        made = self._reader.batches(self._order)
        with prefetched(made, ahead=self._prefetch_batches, device=device) as batches:
            for number, batch in enumerate(batches):
                self._runtime.beat("an evaluation")
                on_device = batch.to(device, non_blocking=True)
                _, output = model(on_device)
                self._keep(output.logits_BM, number=number, known=known)
                merged_B = merge(output.logits_BM.double(), rule=self._rule)
                # Kept away from 0 and 1 as in metrics_of_probabilities: an infinite logit has no loss.
                merged_logit_B = torch.logit(merged_B, eps=torch.finfo(merged_B.dtype).eps)
                columns = torch.cat([output.logits_BM.double(), merged_logit_B[:, None]], dim=1)
                meter.add(columns, on_device.labels_B, on_device.mask_B)
        meter.reduce(self._runtime.sum)
        model.train()
        return meter.compute()

    def _keep(self, logits_BM: torch.Tensor, *, number: int, known: Collection[str]) -> None:
        """Puts what is known of a batch in, and keeps what will not change."""
        for name, of_batches in self._kept.items():
            column = self._columns.index(name)
            if name in known:
                logits_BM[:, column] = of_batches[number].to(logits_BM.device)
            else:
                of_batches.append(logits_BM[:, column].to("cpu", copy=True))  # a view would keep every column


def quality_line(results: dict[str, MeteredColumn], *, say: Callable[[str], None]) -> None:
    """Says every column's AUC and log loss in one line."""
    figures = "  ".join(
        f"{name} {column.metrics.auc:.5f}/{column.metrics.log_loss_nats:.5f}" for name, column in results.items()
    )
    say(f"  eval auc/log_loss_nats  {figures}")


def figures(column: MeteredColumn) -> dict[str, float]:
    """The figures of a column that are logged, by name."""
    metrics = column.metrics
    return {
        "auc": metrics.auc,
        "auc_error": column.auc_error,
        "log_loss_nats": metrics.log_loss_nats,
        "ne": metrics.ne,
        "calibration": metrics.calibration,
    }


def as_scalars(results: dict[str, MeteredColumn], *, name: str = "eval") -> dict[str, float]:
    """Metric path -> value: `NAME/COLUMN/FIGURE`, where `best` is of the best weights and `eval` of those of now."""
    return {f"{name}/{column}/{key}": value for column, of in results.items() for key, value in figures(of).items()}
