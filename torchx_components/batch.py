"""The components batch.prepare and batch.score: many hosts prepare one log, and score it with a trained checkpoint."""

# No `from __future__ import annotations` and no `X | None` here: TorchX reads the annotations as they stand.
import re
import shlex
from typing import Dict, List, Optional

import torchx
from torchx import specs

from torchx_components import dist

SCRIPT = "trainer/score.py"
PREPARE_SCRIPT = "tools/prepare_criteo.py"
_NEXT_LABEL = re.compile(r",(?=[a-z0-9_]+=)")  # a comma in a folder's name stays one


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
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """
    Scores every row of a prepared click log and writes predictions as Parquet parts.

    Usage: torchx run -s local_cwd batch.score -j 1x8 --checkpoint DIR --output DIR -- --data.root=DIR

    Args:
        args: overrides for trainer/score.py, such as --data.root=DIR
        checkpoint: the checkpoint's folder, or several as a=DIR,b=DIR
        output: the folder for the predictions
        image: image (e.g. docker)
        name: job name override in the form {experimentname}/{runname}
        h: a registered named resource (takes precedence over cpu, gpu, memMB)
        cpu: number of cpus per replica
        gpu: number of gpus per replica
        memMB: cpu memory in MB per replica
        j: [{min_nnodes}:]{nnodes}x{nproc_per_node}
        env: environment variables for the run (e.g. ENV1=v1,ENV2=v2)
        max_retries: how often torchrun restarts the ranks when one is lost, and the scheduler the job
        mounts: mounts into the container (e.g. type=bind,src=/host,dst=/job,readonly)
    """
    return dist.ddp(
        SCRIPT,
        *[word for one in _NEXT_LABEL.split(checkpoint) for word in ("--checkpoint", one)],
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
        mounts=mounts,
    )


def prepare(
    *args: str,
    output: str,
    tasks: int = 1,
    script: str = PREPARE_SCRIPT,
    image: str = torchx.IMAGE,
    name: str = "/",
    h: Optional[str] = None,
    cpu: int = 2,
    memMB: int = 4096,
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    mounts: Optional[List[str]] = None,
) -> specs.AppDef:
    """
    Prepares a click log on many hosts that share the output folder; each task takes every tasks-th file.

    Usage: torchx run -s local_cwd batch.prepare --output DIR --tasks 24 -- --input 'logs/day_*.gz'

    Args:
        args: flags of the preparing program, such as --input FILE ...
        output: the folder to write, the same for all hosts
        tasks: number of tasks, as many as there are files at most
        script: the preparing program: tools/prepare_criteo.py or tools/prepare_table.py
        image: image (e.g. docker)
        name: job name override in the form {experimentname}/{runname}
        h: a registered named resource (takes precedence over cpu, memMB)
        cpu: number of cpus per task
        memMB: memory in MB per task
        env: environment variables for the run (e.g. ENV1=v1,ENV2=v2)
        max_retries: the number of scheduler retries allowed; a task that is started again goes on from what is done
        mounts: mounts into the container (e.g. type=bind,src=/host,dst=/job,readonly)
    """
    resource = specs.resource(cpu=cpu, gpu=0, memMB=memMB, h=h)
    memory = [] if "--memory-gb" in args else ["--memory-gb", f"{0.9 * resource.memMB / 1024:.2f}"]
    # In a role's arguments `$$` stands for `$`.
    flags = [shlex.quote(arg).replace("$", "$$") for arg in ("--output", output, *args, *memory)]
    command = " ".join(["python", shlex.quote(script), *flags, "--shard", f"{specs.macros.replica_id}/{tasks}"])
    role = specs.Role(
        name="prepare",
        image=image,
        entrypoint="bash",
        args=["-c", command],
        num_replicas=tasks,
        resource=resource,
        env={"OMP_NUM_THREADS": "1", **(env or {})},
        max_retries=max_retries,
        mounts=specs.parse_mounts(mounts) if mounts else [],
    )
    app_name = name if name.strip("/") else "prepare"
    return dist.find_torchrun_beside_python(specs.AppDef(name=app_name, roles=[role]))
