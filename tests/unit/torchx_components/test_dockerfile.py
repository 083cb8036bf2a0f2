"""The image's recipe: what it copies is there and not ignored, and it installs what `make install` does."""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path

import fsspec
import pytest
from torchx.workspace.api import walk_workspace

from tools.bootstrap import CONSTRAINTS

ROOT = Path(__file__).resolve().parents[3]
STEPS = [
    step
    for step in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if step and not step.startswith("#")
]
SOURCES = [word for step in STEPS if step.startswith("COPY ") for word in step.split()[1:-1]]
RUN = " && ".join(step for step in STEPS if step.startswith("RUN "))


@pytest.fixture(scope="module")
def context() -> set[str]:
    """Every file that TorchX would send along; it reads .dockerignore as Docker does."""
    files = walk_workspace(fsspec.filesystem("file"), str(ROOT), ".dockerignore")
    return {
        posixpath.normpath(posixpath.join(posixpath.relpath(at, ROOT), name))
        for at, _, names in files
        for name in names
    }


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_copied_is_there_and_not_ignored(source: str, context: set[str]) -> None:
    path = ROOT / source
    expected = [path] if path.is_file() else [*path.rglob("*.py"), *path.rglob("*.toml")]
    assert expected
    assert {str(file.relative_to(ROOT)) for file in expected if "__pycache__" not in file.parts} <= context


def test_every_package_is_copied() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.removesuffix(".*") for name in packages} <= set(SOURCES)


def test_what_an_image_does_not_need_stays_out(context: set[str]) -> None:
    folders = {name.split("/")[0] for name in context if "/" in name}
    assert folders.isdisjoint({".git", ".venv", "runs", "data", "demo", "tests", "docs"})
    assert not [name for name in context if "__pycache__" in name and "/" in name]


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_it_installs_what_the_bootstrap_does_but_for_the_tests(variant: str) -> None:
    """In the same order, each under the same constraints."""
    command = RUN.replace("${VARIANT}", variant).replace('"', "")
    installs = re.findall(r"pip install (.*?)(?: &&|$)", command)
    assert [install.replace(" ${EXTRA_PACKAGES}", "").split() for install in installs] == [
        ["-r", f"requirements-{variant}.txt", "-c", CONSTRAINTS],
        ["-r", "requirements.txt", "-r", f"requirements-{variant}.txt", "-c", CONSTRAINTS],
        ["--no-deps", "-r", "requirements-torchrec.txt"],
        ["--no-deps", "--no-build-isolation", "-e", "."],
    ]
    assert {path.name for path in ROOT.glob("requirements*.txt")} - set(SOURCES) == {"requirements-dev.txt"}


def test_the_job_is_not_root_and_its_command_is_torchx_s() -> None:
    assert [step for step in STEPS if step.startswith("USER ")] == [STEPS[-1]] == ["USER 1000"]
    assert not [step for step in STEPS if step.startswith(("ENTRYPOINT", "CMD"))]
