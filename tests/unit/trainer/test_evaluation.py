"""Evaluation: every held-out row once, each member and the merge, against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from modules.contracts import EnsembleOutput
from tests.unit.trainer.data.prepared import PartArrays, part_arrays, prepared_folder
from tests.unit.trainer.ranks import OneOfMany
from trainer.data.reading.batch import Batch
from trainer.data.reading.source import PreparedSource
from trainer.evaluation import Evaluator, as_scalars, quality_line
from trainer.metrics.exact import metrics_of_logits
from trainer.metrics.meters import MeteredColumn


class LinearMembers(nn.Module):
    """Two members whose logits are read off the row, scaled."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.modes: list[bool] = []

    def forward(self, batch: Batch) -> tuple[Tensor, EnsembleOutput]:
        self.modes.append(self.training)
        logits = self.scale * torch.stack([batch.dense_BN[:, 0], batch.dense_BN.sum(dim=1)], dim=1)
        # What padding holds must not matter.
        logits = torch.where(batch.mask_B[:, None] > 0, logits, torch.nan)
        return logits.sum(), EnsembleOutput(logits, torch.zeros(2))


def evaluated(
    tmp_path: Path, arrays: PartArrays, *, batch_size: int = 16, rule: str = "mean_logit", scale: float = 1.0
) -> tuple[dict[str, MeteredColumn], LinearMembers]:
    source = PreparedSource(root=prepared_folder(tmp_path / "data", {"day": arrays}), parts=["day"])
    evaluator = Evaluator(
        source=source,
        batch_size=batch_size,
        member_names=["deep", "solo"],
        rule=rule,
        runtime=OneOfMany(),  # type: ignore[arg-type]
    )
    model = LinearMembers(scale).train()
    return evaluator.evaluate(model), model


@pytest.mark.parametrize("batch_size", [7, 16, 1_000])
def test_every_column_has_its_exact_figures(tmp_path: Path, batch_size: int) -> None:
    arrays = part_arrays(50, seed=3)
    results, model = evaluated(tmp_path, arrays, batch_size=batch_size)
    assert list(results) == ["deep", "solo", "merged"]
    labels = arrays.labels[:, 0]
    wide = arrays.dense.astype(np.float64)
    columns = {"deep": wide[:, 0], "solo": wide.sum(axis=1)}
    columns["merged"] = (columns["deep"] + columns["solo"]) / 2
    for name, logits in columns.items():
        exact = metrics_of_logits(labels, logits)
        found = results[name].metrics
        assert found.num_rows == 50
        assert found.auc == pytest.approx(roc_auc_score(labels, logits), abs=results[name].auc_error + 1e-9)
        assert found.log_loss_nats == pytest.approx(exact.log_loss_nats, rel=1e-5)
    assert set(model.modes) == {False}
    assert model.training


def test_saturated_predictions_have_a_loss(tmp_path: Path) -> None:
    """A merged probability of exactly 1 has an infinite logit, and infinity minus infinity is no loss."""
    arrays = part_arrays(40, seed=3)
    for rule in ("mean_logit", "mean_probability", "median"):
        results, _ = evaluated(tmp_path, arrays, rule=rule, scale=1e4)
        assert all(math.isfinite(column.metrics.log_loss_nats) for column in results.values())
        assert results["merged"].metrics.calibration > 0


def test_scalars_and_the_line_say_the_same(tmp_path: Path) -> None:
    results, _ = evaluated(tmp_path, part_arrays(50, seed=3))
    scalars = as_scalars(results)
    assert set(scalars) == {
        f"eval/{name}/{figure}"
        for name in ("deep", "solo", "merged")
        for figure in ("auc", "auc_error", "log_loss_nats", "ne", "calibration")
    }
    said: list[str] = []
    quality_line(results, say=said.append)
    assert said[0].startswith("  eval auc/log_loss_nats  deep ")
    merged = f"merged {scalars['eval/merged/auc']:.5f}/{scalars['eval/merged/log_loss_nats']:.5f}"
    assert said[0].endswith(merged)


def test_a_member_that_no_longer_changes_is_computed_once(tmp_path: Path) -> None:
    arrays = part_arrays(50, seed=3)
    source = PreparedSource(root=prepared_folder(tmp_path / "data", {"day": arrays}), parts=["day"])
    evaluator = Evaluator(
        source=source,
        batch_size=16,
        member_names=["deep", "solo"],
        rule="mean_logit",
        runtime=OneOfMany(),  # type: ignore[arg-type]
    )

    class Skipping(LinearMembers):
        skipped: frozenset[str] = frozenset()

        def forward(self, batch: Batch) -> tuple[Tensor, EnsembleOutput]:
            total, output = super().forward(batch)
            if "solo" in self.skipped:
                output.logits_BM[:, 1] = 0.0
            return total, output

    model, asked = Skipping(), []

    def skip(names: Collection[str]) -> None:
        model.skipped = frozenset(names)
        asked.append(sorted(names))

    whole = evaluator.evaluate(model)
    for _ in range(3):
        found = evaluator.evaluate(model, settled={"solo"}, skip=skip)
        assert as_scalars(found) == as_scalars(whole)
    assert asked == [[], [], ["solo"], [], ["solo"], []]
    model.scale = 2.0  # what still changes is seen, and the merge with it
    changed = evaluator.evaluate(model, settled={"solo"}, skip=skip)
    assert changed["solo"].metrics == whole["solo"].metrics
    assert changed["deep"].metrics.log_loss_nats != whole["deep"].metrics.log_loss_nats
    assert changed["merged"].metrics.log_loss_nats != whole["merged"].metrics.log_loss_nats
