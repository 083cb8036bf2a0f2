"""What all tests share: one thread, and visible skips where a GPU or real data is missing."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

# Before numpy and torch are imported: they read it once. Results depend on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"
gc.disable()  # between imports there is nothing to find

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA_VARIABLE = "CHORUS_TEST_DATA"
SHARING_RANKS = "tests/parity"


def real_data_folder() -> Path:
    """Returns the folder with real click logs; it need not exist."""
    return Path(os.environ.get(REAL_DATA_VARIABLE) or ROOT.parent / "shared" / "data")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine cannot run; last, so that deselected tests are gone and cost no import of torch."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_cuda():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none"))
    if not real_data_folder().is_dir():
        reason = f"no real data in {real_data_folder()}; set {REAL_DATA_VARIABLE} to a folder that holds some"
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """From here on the garbage collector does its work, but for what the imports made: that stays."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deals out whole files, and the tests that share ranks together, so that one process starts the ranks."""
    from xdist.scheduler import LoadFileScheduling

    class Dealer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder, _, file = nodeid.partition("::")[0].rpartition("/")
            return folder if folder == SHARING_RANKS else f"{folder}/{file}"

    return Dealer(config, log)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Starts torch's random stream anew, so that what a test draws does not depend on those before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Holds torch at one thread where any test module imported it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def real_data(request: pytest.FixtureRequest) -> Path:
    """The folder with real click logs; for tests marked real_data."""
    assert request.node.get_closest_marker("real_data"), "mark the test with real_data"
    return real_data_folder()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
