"""Failures: one sentence, the exit code of its kind, and a traceback where it helps."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence

import pytest

from configs.errors import CheckpointError, ChorusError, ConfigError, DataError, PlanError
from configs.schema import Run
from tests.support.commands import run_code
from tests.unit.trainer.ranks import one_rank
from trainer import storage
from trainer.failures import Explanation, exit_code_of, failure_sentence, guard, lost_a_peer


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


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ranks write to the same stream, which schedulers' PYTHONUNBUFFERED leaves without a buffer."""
    pieces: list[bytes] = []

    class Recorded(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            pieces.append(bytes(data))
            return len(data)

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(Recorded(), write_through=True))  # type: ignore[type-var]
    guard(program(DataError("no such part")), [])
    assert pieces == [b"error: no such part\n"]


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
    known = Explanation(sentence="no such part", exit_code=2, is_first=False, wants_traceback=True)
    error.explanation = known  # type: ignore[attr-defined]
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


def test_what_was_found_out_about_a_lost_peer_is_told_in_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("Connection reset by peer")
    found = "rank 1 (far, pid 7) failed at step 3: no such part"
    error.explanation = Explanation(  # type: ignore[attr-defined]
        sentence=found, exit_code=2, is_first=True, wants_traceback=False
    )
    assert guard(program(error), []) == 2
    assert capsys.readouterr().err == f"error: {found}\n"


def test_a_checkpoint_that_could_not_be_agreed_on_tells_of_a_lost_peer() -> None:
    error = ChorusError("cannot save x")
    assert not lost_a_peer(error)
    error.__cause__ = RuntimeError("Connection closed by peer")
    assert lost_a_peer(error)
    error.__cause__ = OSError("Connection reset by peer")  # by a server of files
    assert not lost_a_peer(error)


@pytest.mark.parametrize(
    ("error", "forbids"), [(ConfigError("x"), True), (PlanError("x"), True), (OSError("x"), False)]
)
@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_a_refused_start_is_not_tried_again(
    error: Exception, forbids: bool, local_rank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("trainer.failures.launcher.forbid_restart", lambda: asked.append(1))
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    guard(program(error), [])
    assert asked == [1] * (forbids and local_rank == "0")


@pytest.mark.parametrize("error", [ValueError("Connection reset"), RuntimeError("shape mismatch"), DataError("x")])
def test_other_errors_are(error: Exception) -> None:
    assert not lost_a_peer(error)
    assert str(error) in failure_sentence(error)


LEAVING = """
import atexit, sys, threading, time, torch
from trainer.failures import leave

def work():
    a = torch.ones(400, 400)
    while True:
        torch.mm(a, a)

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread's last line"))).start()
sys.stdout.write("unflushed, ")
{end}
"""


@pytest.mark.parametrize("code", [0, 75])
def test_a_program_leaves_with_its_code_while_threads_are_inside_a_library(code: int) -> None:
    left = run_code(LEAVING.format(end=f"leave({code})"))
    assert (left.returncode, left.stderr) == (code, "")
    assert left.stdout == "unflushed, a thread's last line\nat exit\n"
