"""Failures: one sentence, the exit code of its kind, and a traceback where it helps."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from configs.errors import CheckpointError, ChorusError, ConfigError, DataError, PlanError
from configs.schema import Run
from tests.unit.trainer.ranks import one_rank
from trainer import storage
from trainer.failures import exit_code_of, failure_sentence, guard, lost_a_peer


def program(error: BaseException):  # type: ignore[no-untyped-def]
    def main(_argv: Sequence[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("kind", "code"), [(ConfigError, 2), (DataError, 2), (CheckpointError, 2), (PlanError, 3), (ChorusError, 1)]
)
def test_a_refusal_is_one_sentence_and_the_code_of_its_kind(
    kind: type[ChorusError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard(program(kind("train.batch_size: 0 must be above zero")), []) == code
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "error: train.batch_size: 0 must be above zero\n")


def test_done_is_whatever_main_says(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Sequence[str]] = []
    assert guard(lambda argv: seen.append(argv) or 75, ["--help"]) == 75
    assert seen == [["--help"]]
    assert capsys.readouterr().err == ""


def test_a_traceback_follows_where_the_command_line_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(program(DataError("no such part")), ["--run.errors=traceback"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: no such part\nTraceback (most recent call last):")
    assert text.rstrip().endswith("DataError: no such part")


def test_a_traceback_follows_where_the_config_asks(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_argv: Sequence[str]) -> int:
        with one_rank(Run(device="cpu", errors="traceback")):
            raise DataError("no such part")

    assert guard(main, []) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_ours_always_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(program(ZeroDivisionError("division by zero")), []) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: ZeroDivisionError: division by zero\nTraceback")


def test_ctrl_c_is_one_sentence_and_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard(program(KeyboardInterrupt()), ["--run.errors=traceback"]) == 130
    assert capsys.readouterr().err == ("error: stopped before anything was finished; the same command starts again\n")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert guard(program(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (CheckpointError("x"), 2),
        (PlanError("x"), 3),
        (ChorusError("x"), 1),
        (OSError("x"), 1),
        (RuntimeError("Connection reset by peer"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(130), 130),
    ],
)
def test_the_exit_code_of_an_error(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


def test_a_full_disk_is_one_sentence_with_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_argv: Sequence[str]) -> int:
        with storage.naming("runs/a/metrics.jsonl"):
            raise OSError(errno.ENOSPC, "No space left on device")

    assert guard(main, []) == 1
    assert capsys.readouterr().err == "error: runs/a/metrics.jsonl: No space left on device\n"


def test_other_ranks_stay_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert guard(program(DataError("no such part")), []) == 2
    error = DataError("no such part")
    error.first_report = False  # type: ignore[attr-defined]
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert guard(program(error), ["--run.errors=traceback"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text",
    [
        "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2000",
        "Connection reset by peer",
        "Timed out waiting 60000ms for recv operation to complete",
        "NCCL watchdog thread terminated",
        "Gloo connectFullMesh failed with ...",
    ],
)
def test_a_lost_peer_is_not_this_ranks_failure(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError(text)
    assert lost_a_peer(error)
    assert guard(program(error), []) == 1
    told = capsys.readouterr().err
    assert told == "error: another rank ended or does not answer; its own message, above or below, is the reason\n"


@pytest.mark.parametrize("error", [ValueError("Connection reset"), RuntimeError("shape mismatch"), DataError("x")])
def test_other_errors_are(error: Exception) -> None:
    assert not lost_a_peer(error)
    assert str(error) in failure_sentence(error)
