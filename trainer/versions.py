"""Checks that torch, fbgemm and torchrec fit together, before anything imports torchrec."""

from __future__ import annotations

import os
from importlib import metadata

# The three are built against each other: another minor release of one fails on import, obscurely.
WANTED = {"torch": "2.13", "fbgemm": "1.8", "torchrec": "1.8"}
FBGEMM_BUILDS = ("fbgemm-gpu", "fbgemm-gpu-cpu")
REMEDY = "run `make install` (VARIANT=cpu or VARIANT=cuda chooses the build) and start with .venv/bin/python"


def installed(distribution: str) -> str | None:
    """Returns the version of an installed distribution, None where it is missing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def find_problem() -> str | None:
    """Returns one sentence on what does not fit and what to do, None where all fits."""
    builds = {name: version for name in FBGEMM_BUILDS if (version := installed(name)) is not None}
    if len(builds) > 1:
        both = " and ".join(FBGEMM_BUILDS)
        return f"both {both} are installed and overwrite each other's files; {REMEDY}"
    build, fbgemm = next(iter(builds.items()), ("fbgemm-gpu", None))
    found = {"torch": installed("torch"), "fbgemm": fbgemm, "torchrec": installed("torchrec")}
    if any(not _in_series(found[name], series) for name, series in WANTED.items()):
        names = {"torch": "torch", "fbgemm": build, "torchrec": "torchrec"}
        has = ", ".join(f"{names[name]} {version or 'missing'}" for name, version in found.items())
        wants = ", ".join(f"{names[name]} {series}" for name, series in WANTED.items())
        return f"these builds do not fit together: found {has}; wanted {wants}; {REMEDY}"
    if build == "fbgemm-gpu" and str(found["torch"]).endswith("+cpu"):
        return f"fbgemm-gpu needs CUDA and torch {found['torch']} has none; {REMEDY}"
    return None


def require_versions() -> None:
    """Ends the process with one sentence where the installed builds do not fit together.

    Under torchrun only local rank 0 prints it.

    Raises:
        SystemExit: with the sentence, which Python prints before it exits with code 1.
    """
    problem = find_problem()
    if problem is None:
        return
    if os.environ.get("LOCAL_RANK", "0") != "0":
        raise SystemExit(1)
    raise SystemExit(f"error: {problem}")


def _in_series(version: str | None, series: str) -> bool:
    """Whether a version such as 2.13.0+cpu belongs to a series such as 2.13."""
    return version is not None and version.split("+")[0].split(".")[:2] == series.split(".")
