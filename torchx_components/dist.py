"""The components dist.ddp and dist.spmd: TorchX's own, with the script taken by position.

    torchx run -s local_cwd dist.ddp -j 1x8 trainer/main.py --config configs/demo.toml --train.batch_size=4096

`--script` and `-m` work as in TorchX. Three things are added to the job. OMP_NUM_THREADS is 1 unless it is given in
`--env` or in the caller's environment. `--max_retries`, which TorchX gives to the scheduler alone, becomes torchrun's
`--max-restarts` too (as PET_MAX_RESTARTS, which `--env` can set apart from it): a lost rank is restarted where it
ran, also under `local_cwd`, which retries nothing. And where torchrun is not the one on PATH but lies beside the
running interpreter (`.venv/bin/torchx` without an activated environment), the job's command puts that folder in front
of PATH; in the command and not in the role's environment, because a remote scheduler would take PATH from there as
the whole of it, while a folder that a remote machine lacks is harmless at the front.
"""

# No `from __future__ import annotations` and no `X | None` here: TorchX reads the annotations as they stand.
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import torchx
from torchx import specs
from torchx.components import dist as stock
from torchx.specs.finder import ComponentValidationException

LINE = "torchx run -s local_cwd dist.ddp -j 1x8 trainer/main.py --config configs/demo.toml"


class _Program(NamedTuple):
    script: Optional[str]
    arguments: Tuple[str, ...]


def ddp(
    *script_args: str,
    script: Optional[str] = None,
    m: Optional[str] = None,
    image: str = torchx.IMAGE,
    name: str = "/",
    h: Optional[str] = None,
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 1024,
    j: str = "1x2",
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    rdzv_port: int = 29500,
    rdzv_backend: str = "c10d",
    mounts: Optional[List[str]] = None,
    debug: bool = False,
    tee: int = 3,
) -> specs.AppDef:
    """
    Runs a script on every rank of a job under torchrun.

    Usage: torchx run -s local_cwd dist.ddp -j 1x8 trainer/main.py --config configs/demo.toml

    Args:
        script_args: the script and its arguments; with --script or -m, the arguments alone
        script: the script, where it is not given by position
        m: the Python module to run instead of a script
        image: image (e.g. docker)
        name: job name override in the form {experimentname}/{runname}
        h: a registered named resource (takes precedence over cpu, gpu, memMB)
        cpu: number of cpus per replica
        gpu: number of gpus per replica
        memMB: cpu memory in MB per replica
        j: [{min_nnodes}:]{nnodes}x{nproc_per_node}
        env: environment variables for the run (e.g. ENV1=v1,ENV2=v2)
        max_retries: how often torchrun restarts the ranks when one is lost, and the scheduler the job
        rdzv_port: the port on rank 0's host for the rendezvous; used by multi-node jobs only
        rdzv_backend: the rendezvous backend; used by multi-node jobs only
        mounts: mounts into the container (e.g. type=bind,src=/host,dst=/job,readonly)
        debug: whether to run with preset debug flags
        tee: streams that go to the console as well as to a file; 0: none, 1: stdout, 2: stderr, 3: both
    """
    program = _find_program(script_args, script=script, m=m)
    app = stock.ddp(
        *program.arguments,
        script=program.script,
        m=m,
        image=image,
        name=name,
        h=h,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        j=j,
        env=_environment(env, max_retries=max_retries),
        max_retries=max_retries,
        rdzv_port=rdzv_port,
        rdzv_backend=rdzv_backend,
        mounts=mounts,
        debug=debug,
        tee=tee,
    )
    return find_torchrun_beside_python(app)


def spmd(
    *args: str,
    script: Optional[str] = None,
    m: Optional[str] = None,
    image: str = torchx.IMAGE,
    name: str = "/",
    h: str = "gpu.small",
    j: str = "1x1",
    env: Optional[Dict[str, str]] = None,
    max_retries: int = 0,
    mounts: Optional[List[str]] = None,
    debug: bool = False,
) -> specs.AppDef:
    """
    Runs a script on every rank of a job, on a named kind of host that gives the number of ranks.

    Usage: torchx run dist.spmd -j 2 -h aws_p4d.24xlarge trainer/main.py --config configs/demo.toml

    Args:
        args: the script and its arguments; with --script or -m, the arguments alone
        script: the script, where it is not given by position
        m: the Python module to run instead of a script
        image: image (e.g. docker)
        name: job name override in the form {experimentname}/{runname}
        h: the kind of host, one of the registered named resources
        j: {nnodes}x{nproc_per_node}; without the second, one process per GPU of the host
        env: environment variables for the run (e.g. ENV1=v1,ENV2=v2)
        max_retries: how often torchrun restarts the ranks when one is lost, and the scheduler the job
        mounts: mounts into the container (e.g. type=bind,src=/host,dst=/job,readonly)
        debug: whether to run with preset debug flags
    """
    program = _find_program(args, script=script, m=m)
    app = stock.spmd(
        *program.arguments,
        script=program.script,
        m=m,
        image=image,
        name=name,
        h=h,
        j=j,
        env=_environment(env, max_retries=max_retries),
        max_retries=max_retries,
        mounts=mounts,
        debug=debug,
    )
    return find_torchrun_beside_python(app)


def _find_program(arguments: Tuple[str, ...], *, script: Optional[str], m: Optional[str]) -> _Program:
    """Takes the script from the front of the arguments, unless --script or -m names the program."""
    if script is not None and m is not None:
        raise ComponentValidationException(f"--script {script} and -m {m} exclude each other; for example: {LINE}")
    if script is not None or m is not None:
        return _Program(script, arguments)
    if not arguments or not arguments[0].endswith(".py"):
        found = f"{arguments[0]!r} stands" if arguments else "nothing stands"
        raise ComponentValidationException(
            f"{found} where the script to run belongs (a *.py file, or --script FILE, or -m MODULE); "
            f"for example: {LINE}"
        )
    rest = arguments[1:]
    # TorchX drops a `--` in front of all arguments; this one would reach the script.
    return _Program(arguments[0], rest[1:] if rest[:1] == ("--",) else rest)


def _environment(env: Optional[Dict[str, str]], *, max_retries: int) -> Dict[str, str]:
    """One thread per rank unless asked otherwise (torchrun warns where nothing is said), and torchrun's restarts."""
    restarts = {"PET_MAX_RESTARTS": str(max_retries)} if max_retries else {}
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **restarts, **(env or {})}


def find_torchrun_beside_python(app: specs.AppDef) -> specs.AppDef:
    """Puts the running interpreter's folder in front of PATH where torchrun would not be found in it otherwise."""
    # Not resolved: in a virtual environment the link's folder is the one that holds torchrun.
    folder = Path(sys.executable).absolute().parent
    here = folder / "torchrun"
    if not here.is_file() or shutil.which("torchrun") == str(here):
        return app
    # In a role's arguments `$$` stands for `$`.
    quoted = shlex.quote(str(folder)).replace("$", "$$")
    for role in app.roles:
        flag, command = role.args
        role.args = [flag, f'export PATH={quoted}:"$$PATH"; {command}']
    return app
