"""A function in a process of its own."""

from __future__ import annotations

import os

import pytest

from configs.errors import DataError
from trainer.analysis.bench.one_process import in_one_process


def surroundings(number: int) -> tuple[int, int, int, str | None]:
    return number, os.getpid(), len(os.sched_getaffinity(0)), os.environ.get("POLARS_MAX_THREADS")


def refuses() -> None:
    raise DataError("rows: -1 is no number of rows")


def ends() -> None:
    os._exit(7)


def breaks() -> None:
    raise ZeroDivisionError


def test_it_runs_elsewhere_and_what_it_gives_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    number, process, cores, threads = in_one_process(surroundings, 5)
    assert (number, cores, threads) == (5, len(os.sched_getaffinity(0)), None)
    assert process != os.getpid()


def test_on_one_core_libraries_get_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_MAX_THREADS", "9")
    assert in_one_process(surroundings, 5, one_core=True)[2:] == (1, "1")
    assert os.environ["POLARS_MAX_THREADS"] == "9"


def test_its_errors_come_back() -> None:
    with pytest.raises(DataError, match="rows: -1"):
        in_one_process(refuses)


@pytest.mark.parametrize(("function", "code"), [(ends, 7), (breaks, 1)])
def test_a_process_that_ends_early_is_told(function, code: int) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Exception, match=f"{function.__name__}: its process ended with code {code}"):
        in_one_process(function)
