"""Brings .venv up to date: the pinned packages for this machine, and the project in editable mode.

Standard library only, since it runs before anything is installed. A second run ends at once: what was
installed is written down in .venv, with a hash of the files that decided it. An installation that was cut
off is rebuilt from nothing, because a package half unpacked looks installed to pip.

    python3 tools/bootstrap.py [--variant auto|cpu|cuda] [--this-python]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
CONSTRAINTS = "requirements-constraints.txt"
# Imported in the fresh environment as the proof that it works; the project's own check of versions goes first.
PROOF = "import trainer, fbgemm_gpu, torchrec, torchx, torchx_components.dist"


class BootstrapError(Exception):
    """One sentence for the user: what is missing and what to do."""


def say(sentence: str) -> None:
    """Prints one line of progress at once."""
    print(f"bootstrap: {sentence}", flush=True)


def find_variant() -> str:
    """Returns "cuda" where nvidia-smi runs and lists a GPU, else "cpu"."""
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if found.returncode == 0 and "GPU " in found.stdout else "cpu"


def version_of(python: str | Path) -> tuple[int, int] | None:
    """Returns an interpreter's (major, minor) version, None where it does not run."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, check=False)
        major, minor = answer.stdout.split()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return int(major), int(minor)


def find_python(*, only_this: bool) -> str:
    """Returns the interpreter to build .venv with: this one where it is new enough, else one on PATH.

    Args:
        only_this: refuse instead of looking for another one.

    Raises:
        BootstrapError: no interpreter is new enough.
    """
    if sys.version_info[:2] >= OLDEST:
        # Never the interpreter inside .venv, which may be about to be deleted.
        return getattr(sys, "_base_executable", None) or sys.executable
    wanted = ".".join(map(str, OLDEST))
    if not only_this:
        for minor in range(OLDEST[1], OLDEST[1] + 4):
            candidate = shutil.which(f"python3.{minor}")
            if candidate and (version_of(candidate) or (0, 0)) >= OLDEST:
                return candidate
    found = f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable})"
    raise BootstrapError(
        f"Python {wanted} or later is needed and this is {found}; install one, then name it: "
        f"`make install PYTHON=python{wanted}`"
    )


def fingerprint(variant: str) -> str:
    """Returns a hash of every file that decides what is installed."""
    digest = hashlib.sha256(variant.encode())
    for path in [*sorted(ROOT.glob("requirements*.txt")), ROOT / "pyproject.toml", Path(__file__).resolve()]:
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class Environment:
    """The folder .venv, and the record in it of what was installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.record_file = folder / "chorus-install.json"
        self.log_file = folder / "chorus-install.log"

    def record(self) -> dict[str, str]:
        """Returns the record of the last installation, empty where there is none."""
        try:
            record = json.loads(self.record_file.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def write_record(self, **record: str) -> None:
        """Replaces the record in one step, so that it is never half written."""
        written = self.record_file.with_suffix(".tmp")
        written.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(written, self.record_file)

    def create(self, python: str) -> None:
        """Builds an empty environment in place of an earlier one of ours.

        Raises:
            BootstrapError: the folder is not ours to delete, or the venv module does not work.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.record()):
            raise BootstrapError(
                f"{self.folder} was not made by this program and would have to be replaced; move it away and run again"
            )
        if self.folder.exists():
            say(f"{self.folder.name} is unfinished, moved or of another kind; it is built anew")
            shutil.rmtree(self.folder)
        version = ".".join(map(str, version_of(python) or OLDEST))
        say(f"building {self.folder.name} with Python {version}")
        self.folder.mkdir()
        # First of all, so that a folder cut off at any later point is known as ours.
        self.write_record(state="unfinished")
        made = subprocess.run([python, "-m", "venv", str(self.folder)], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise BootstrapError(
                f"`{python} -m venv` failed; on Debian and Ubuntu the package python3-venv is what is missing "
                f"most often. It said:\n{(made.stdout + made.stderr).strip()}"
            )

    def run(self, what: str, *arguments: str) -> None:
        """Runs the environment's Python and keeps its output in the log.

        Raises:
            BootstrapError: it failed; holds the end of its output.
        """
        # A PYTHONPATH of the caller's would put other packages in front of the ones installed here.
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        began = time.monotonic()
        say(what)
        done = subprocess.run(
            [str(self.python), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=ROOT,
            check=False,
        )
        seconds = time.monotonic() - began
        with self.log_file.open("a") as log:
            log.write(f"== {what}\n{done.stdout}== exit code {done.returncode} after {seconds:.1f} s\n")
        if done.returncode != 0:
            ending = "\n".join(done.stdout.strip().splitlines()[-15:])
            raise BootstrapError(
                f"this step failed: {what}\n{ending}\nThe whole output is in {self.log_file}. Mend the cause "
                "(network, disk space, pip's configuration) and run the same command again."
            )

    def pip(self, what: str, *arguments: str) -> None:
        """Runs `pip install` with the given arguments; see `run`."""
        options = ["--quiet", "--no-input", "--disable-pip-version-check"]
        self.run(what, "-m", "pip", "install", *options, *arguments)


def install(environment: Environment, variant: str) -> None:
    """Installs everything into an environment that exists; every step is harmless when repeated."""
    environment.pip(
        f"installing torch and fbgemm ({variant}); the largest step, minutes on a slow line",
        *("-r", f"requirements-{variant}.txt", "-c", CONSTRAINTS),
    )
    environment.pip(
        "installing the other packages; a minute or two",
        *("-r", "requirements.txt", "-r", "requirements-dev.txt", "-r", f"requirements-{variant}.txt"),
        *("-c", CONSTRAINTS),
    )
    environment.pip("installing torchrec", "--no-deps", "-r", "requirements-torchrec.txt")
    # The pinned setuptools is there by now; an isolated build would fetch another one.
    environment.pip("installing the project", "--no-deps", "--no-build-isolation", "-e", ".")
    environment.run("importing what was installed", "-c", PROOF)


def bring_up_to_date(environment: Environment, *, variant: str, this_python: bool) -> None:
    """Installs what is missing, or returns at once where nothing is.

    Args:
        environment: the environment to look after.
        variant: "cpu", "cuda", or "auto": what is installed already, else what fits the machine.
        this_python: .venv must hold the running interpreter's version.

    Raises:
        BootstrapError: a step failed.
    """
    record = environment.record()
    finished = record.get("state") == "finished" and record.get("root") == str(ROOT) and environment.python.exists()
    if variant == "auto":
        variant = record.get("variant", "") if finished else find_variant()
    mine = ".".join(map(str, sys.version_info[:2]))
    reusable = finished and record.get("variant") == variant and not (this_python and record.get("python") != mine)
    wanted = fingerprint(variant)
    if reusable and record.get("fingerprint") == wanted:
        return

    began = time.monotonic()
    if not reusable:
        environment.create(find_python(only_this=this_python))
    version = ".".join(map(str, version_of(environment.python) or ()))
    facts = {"variant": variant, "python": version, "root": str(ROOT)}
    environment.write_record(state="unfinished", **facts)
    install(environment, variant)
    environment.write_record(state="finished", fingerprint=wanted, **facts)
    say(f"ready after {time.monotonic() - began:.0f} s: Python {version}, variant {variant}")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Holds a lock on the repository's folder: two bootstraps at once would spoil each other's .venv."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another bootstrap is at work here; waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, locks, installs; returns the exit code."""
    parser = argparse.ArgumentParser(description="Brings .venv up to date.")
    parser.add_argument("--variant", choices=["auto", "cpu", "cuda"], default="auto", help="which builds to install")
    parser.add_argument("--this-python", action="store_true", help="use the running interpreter and no other")
    options = parser.parse_args(arguments)
    try:
        with one_at_a_time():
            bring_up_to_date(Environment(ROOT / ".venv"), variant=options.variant, this_python=options.this_python)
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run the same command again to finish the installation", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
