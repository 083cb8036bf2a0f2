"""The component batch.score: scores a prepared click log with a trained checkpoint."""

# No `from __future__ import annotations` and no `X | None` here: TorchX reads the annotations as they stand.
from typing import Dict, Optional

import torchx
from torchx import specs

from torchx_components import dist

SCRIPT = "trainer/score.py"


def score(
    *args: str,
    checkpoint: str,
    output: str,
    image: str = torchx.IMAGE,
    name: str = "/",
    h: Optional[str] = None,
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 1024,
    j: str = "1x1",
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
) -> specs.AppDef:
    """
    Scores every row of a prepared click log and writes predictions as Parquet parts.

    Usage: torchx run -s local_cwd batch.score -j 1x8 --checkpoint DIR --output DIR -- --data.root=DIR

    Args:
        args: overrides for trainer/score.py, such as --data.root=DIR
        checkpoint: the checkpoint's folder
        output: the folder for the predictions
        image: image (e.g. docker)
        name: job name override in the form {experimentname}/{runname}
        h: a registered named resource (takes precedence over cpu, gpu, memMB)
        cpu: number of cpus per replica
        gpu: number of gpus per replica
        memMB: cpu memory in MB per replica
        j: [{min_nnodes}:]{nnodes}x{nproc_per_node}
        env: environment variables for the run (e.g. ENV1=v1,ENV2=v2)
        max_retries: the number of scheduler retries allowed
    """
    return dist.ddp(
        SCRIPT,
        "--checkpoint",
        checkpoint,
        "--output",
        output,
        *args,
        image=image,
        name=name,
        h=h,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        j=j,
        env=env,
        max_retries=max_retries,
    )
