"""The check of the torch, fbgemm, torchrec triple."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from trainer import versions

ROOT = Path(__file__).resolve().parents[3]
GOOD = {"torch": "2.13.0", "fbgemm-gpu-cpu": "1.8.0", "torchrec": "1.8.0"}


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Makes the given distributions, and no others, look installed."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def pretend(distributions: dict[str, str]) -> None:
        def version(name: str) -> str:
            if name not in distributions:
                raise metadata.PackageNotFoundError(name)
            return distributions[name]

        monkeypatch.setattr(versions.metadata, "version", version)

    return pretend


@pytest.mark.parametrize(
    "distributions",
    [
        GOOD,
        GOOD | {"torch": "2.13.0+cpu"},
        GOOD | {"torch": "2.13.1"},
        {"torch": "2.13.0+cu130", "fbgemm-gpu": "1.8.0", "torchrec": "1.8.0"},
        {"torch": "2.13.0", "fbgemm-gpu": "1.8.0+cu130", "torchrec": "1.8.0"},
    ],
)
def test_a_fitting_triple_passes(install, distributions):
    install(distributions)
    versions.require_versions()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"torch": "2.12.1+cpu"}, ["torch 2.12.1+cpu", "torch 2.13,"]),
        ({"torch": "2.130.0"}, ["torch 2.130.0"]),
        ({"fbgemm-gpu-cpu": "1.7.0"}, ["fbgemm-gpu-cpu 1.7.0", "fbgemm-gpu-cpu 1.8,"]),
        ({"torchrec": "1.9.0"}, ["torchrec 1.9.0", "torchrec 1.8;"]),
        ({"torch": None}, ["torch missing"]),
        ({"fbgemm-gpu-cpu": None}, ["fbgemm-gpu missing"]),
        ({"torchrec": None}, ["torchrec missing"]),
        ({"fbgemm-gpu": "1.8.0"}, ["both fbgemm-gpu and fbgemm-gpu-cpu"]),
        ({"torch": "2.13.0+cpu", "fbgemm-gpu": "1.8.0", "fbgemm-gpu-cpu": None}, ["fbgemm-gpu needs CUDA"]),
    ],
)
def test_a_misfit_is_one_sentence_with_found_wanted_and_remedy(install, changed, named):
    install({name: version for name, version in (GOOD | changed).items() if version is not None})
    with pytest.raises(SystemExit) as caught:
        versions.require_versions()
    sentence = caught.value.code
    assert isinstance(sentence, str) and "\n" not in sentence
    assert sentence.startswith("error: ") and "make install" in sentence
    for part in named:
        assert part in sentence


def test_under_torchrun_only_local_rank_0_prints(install, monkeypatch):
    install({})
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as caught:
        versions.require_versions()
    assert caught.value.code == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(SystemExit) as caught:
        versions.require_versions()
    assert "missing" in str(caught.value.code)


def test_importing_the_trainer_runs_the_check_before_torchrec():
    """A real process: exit code 1, the sentence alone on stderr, torchrec never imported."""
    program = (
        "import sys; from importlib import metadata\n"
        "real = metadata.version\n"
        "metadata.version = lambda name: '1.2.0' if name == 'torchrec' else real(name)\n"
        "import atexit; atexit.register(lambda: print('torchrec' in sys.modules, 'torch' in sys.modules))\n"
        "import trainer\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stdout.split() == ["False", "False"]
    assert done.stderr.count("\n") == 1 and "found" in done.stderr and "torchrec 1.2.0" in done.stderr


def test_the_wanted_series_are_the_pinned_ones():
    pins = {}
    for file in ROOT.glob("requirements*.txt"):
        for line in file.read_text().splitlines():
            name, separator, version = line.partition("==")
            if separator:
                pins[name] = version
    assert pins["fbgemm-gpu"] == pins["fbgemm-gpu-cpu"]
    pinned = {"torch": pins["torch"], "fbgemm": pins["fbgemm-gpu"], "torchrec": pins["torchrec"]}
    assert {name: version.rpartition(".")[0] for name, version in pinned.items()} == versions.WANTED
