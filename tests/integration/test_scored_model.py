"""The model that scoring benchmarks time: some members or none on the same tables, and the whole again afterwards."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.integration.conftest import TrainedRun
from tests.support.runs import small_run
from trainer.analysis.bench.scored_model import ScoredModel
from trainer.runtime import Runtime


def test_some_members_or_none(trained: TrainedRun, tmp_path: Path) -> None:
    words = [f"--data.root={trained.data}", '--score.parts=["day_0"]', "--score.batch_size=32"]
    with Runtime(small_run().run) as runtime:
        scored = ScoredModel(str(trained.checkpoint), words=words, scratch=str(tmp_path / "scratch"), runtime=runtime)
        assert scored.member_names == ("deep", "cross", "dot", "factor") and scored.num_steps == 7  # 200 rows
        batches = scored.batches(3)
        assert len(batches) == 3

        def logits() -> torch.Tensor:
            with torch.no_grad():
                result: torch.Tensor = scored.model(batches[0])[1].logits_BM
            return result

        whole = logits()
        with scored.only(2):
            torch.testing.assert_close(logits(), whole[:, :2], rtol=0, atol=0)
            assert scored.pass_seconds() > 0
        with scored.only(0):
            assert torch.equal(logits(), torch.zeros(32, 1))
            assert scored.pass_seconds() > 0
        torch.testing.assert_close(logits(), whole, rtol=0, atol=0)
        inputs = scored.inputs(batches)
        with torch.no_grad():
            alone = scored._members["deep"](inputs[0])
        torch.testing.assert_close(alone, whole[:, 0], rtol=0, atol=0)
        assert scored.dense_seconds(inputs) > 0 and scored.forward_seconds(batches) > 0
    assert not (tmp_path / "scratch").exists()
