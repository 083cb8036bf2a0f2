"""What only a CUDA device can verify: nccl, the fused CUDA kernels, the overlapped pipeline, CUDA events.

`make test-gpu` runs these on one GPU; the CPU tests pin the same properties on gloo.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.runs import placed, small_run
from tests.support.training import train_run
from tests.support.unsharded import train_unsharded
from trainer.runtime import Runtime

pytestmark = pytest.mark.gpu


def _train_on_cuda(config, folder):
    with Runtime(config.run) as runtime:
        assert runtime.device.type == "cuda"
        return train_run(runtime, config, folder)[0]


@pytest.mark.parametrize("placement", ["data_parallel", "table_wise", "row_wise", "auto"])
@pytest.mark.parametrize("pipeline", ["plain", "sparse_dist"])
def test_cuda_equals_the_unsharded_model_on_cpu(tmp_path, placement, pipeline):
    words = (f"--train.pipeline={pipeline}", "--train.until={steps=9}", "--train.evaluate_every={steps=4}")
    config = small_run(*placed(placement), *words, "--run.device=cuda")
    plain = train_unsharded(config, 9)
    found = _train_on_cuda(config, str(tmp_path))
    assert found.keys() == plain.end.keys()
    for key, value in plain.end.items():
        np.testing.assert_allclose(found[key], value, atol=2e-4, rtol=1e-4, err_msg=key)


def test_resumed_equals_uninterrupted_on_cuda(tmp_path):
    words = ("--run.device=cuda", *placed("table_wise"))
    whole = _train_on_cuda(small_run(*words, "--train.until={steps=14}"), f"{tmp_path}/a")
    _train_on_cuda(small_run(*words, "--train.until={steps=5}"), f"{tmp_path}/b")
    resumed = _train_on_cuda(small_run(*words, "--train.until={steps=14}"), f"{tmp_path}/b")
    for key, value in whole.items():
        np.testing.assert_allclose(resumed[key], value, atol=1e-5, rtol=1e-5, err_msg=key)


def test_the_phases_of_a_step_are_timed_by_events(tmp_path):
    _train_on_cuda(small_run("--run.device=cuda", "--train.pipeline=plain"), str(tmp_path))
    (first, *_) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    fractions = {key: value for key, value in json.loads(first).items() if key.startswith("time/")}
    assert all(value > 0 for value in fractions.values()), fractions
