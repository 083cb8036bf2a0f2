"""Runtime: one rank of one, its process group, and errors that every rank would see."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import torch
import torch.distributed as dist

from configs.errors import ConfigError, DataError
from configs.schema import Run
from tests.unit.trainer.ranks import one_rank
from trainer.failures import explanation_of
from trainer.runtime import Runtime, _asked_by_hand


def test_the_rank_in_the_job_decides_who_speaks_not_the_rank_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 4, "WORLD_SIZE": 8, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    assert not Runtime(Run(device="cpu")).is_main
    monkeypatch.setenv("RANK", "0")
    assert Runtime(Run(device="cpu")).is_main


def test_the_group_is_open_within_the_block_alone(runtime: Runtime) -> None:
    assert dist.is_initialized()
    assert runtime.group.size() == 1
    assert runtime.device == torch.device("cpu")


def test_the_group_is_closed_afterwards() -> None:
    assert not dist.is_initialized()
    with pytest.raises(AssertionError, match="not open"):
        _ = Runtime(Run(device="cpu")).group


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        Runtime(Run(device="cuda"))
    assert str(refused.value) == "run.device: 'cuda', but no GPU is visible; take 'auto' or 'cpu'"


@pytest.mark.parametrize("local_rank", [0, 1, 2])
def test_more_ranks_than_gpus_are_refused_on_every_rank(monkeypatch: pytest.MonkeyPatch, local_rank: int) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, value in {"RANK": local_rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": 3, "LOCAL_WORLD_SIZE": 3}.items():
        monkeypatch.setenv(name, str(value))
    for device in ("auto", "cuda"):
        with pytest.raises(ConfigError) as refused:
            Runtime(Run(device=device))  # type: ignore[arg-type]
        assert str(refused.value) == (
            "3 ranks on this host, but 2 GPUs; start one rank a GPU, or set run.device = 'cpu'"
        )
    assert Runtime(Run(device="cpu")).device == torch.device("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Runtime(Run(device="auto")).device == torch.device("cuda", 1)


def test_one_rank_agrees_with_itself(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    values = torch.tensor([1.0, 2.0])
    assert runtime.sum(values) is values
    assert runtime.gather("mine") == ["mine"]
    assert runtime.from_main(lambda: 3) == 3
    assert runtime.together(lambda: 4) == 4
    runtime.say("a line")
    assert capsys.readouterr().out == "a line\n"


def test_errors_come_out_as_they_are(runtime: Runtime) -> None:
    def fail() -> None:
        raise DataError("no such part")

    for collective in (runtime.from_main, runtime.together):
        with pytest.raises(DataError, match="no such part"):
            collective(fail)


def test_a_name_is_made_once_a_job(runtime: Runtime) -> None:
    assert runtime.once_per_job("folder", lambda: "first") == "first"
    assert runtime.once_per_job("folder", lambda: "second") == "first"
    assert runtime.once_per_job("other", lambda: "second") == "second"


def test_a_failure_is_claimed_once(runtime: Runtime) -> None:
    assert [runtime.claim("a"), runtime.claim("a"), runtime.claim("b")] == [True, False, True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_even_when_it_comes_twice_at_once(runtime: Runtime, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    runtime.listen_for_stop()
    assert signal.getsignal(number) not in (before, signal.SIG_DFL), "the signal below would end the tests"
    assert not runtime.stop_requested
    for _ in range(3):
        signal.raise_signal(number)
        assert runtime.stop_requested


def test_ctrl_c_again_after_a_while_ends_the_process(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("trainer.runtime.time.monotonic", lambda: now[0])
    runtime.listen_for_stop()
    signal.raise_signal(signal.SIGTERM)
    now[0] += 60.0
    signal.raise_signal(signal.SIGTERM)  # from torchrun, which ends workers its own way
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_before_there_is_something_to_save_a_signal_ends_the_process() -> None:
    before = signal.getsignal(signal.SIGINT)
    with one_rank(Run(device="cpu")):
        assert signal.getsignal(signal.SIGINT) == before
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN), "it would end the tests"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_runtime_is_also_for_a_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """Where signals are another thread's business."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with Runtime(Run(device="cpu")) as opened:
            opened.say(str(opened.sum(torch.ones(1)).item()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (capsys.readouterr().out, signal.getsignal(signal.SIGTERM)) == ("1.0\n", before)


def test_a_step_has_the_short_limit_and_what_lasts_the_long_one(runtime: Runtime) -> None:
    dog = runtime._of_watchdog
    short, long = (60, "run.hang_seconds"), (600, "run.timeout_seconds")
    assert dog.limit == (0.0, "")
    with runtime.patience("restoring"):
        assert (dog.limit, dog.doing) == (long, "restoring")
    assert (dog.limit, dog.doing) == ((0.0, ""), "start")
    with runtime.steps():
        assert dog.limit == long
        runtime.beat("step 1")
        assert dog.limit == long, "the first step compiles and allocates"
        runtime.beat("step 2")
        assert (dog.limit, dog.doing) == (short, "step 2")
        with runtime.patience("an evaluation"):
            assert (dog.limit, dog.doing) == (long, "an evaluation")
            runtime.beat("an evaluation")
            assert dog.limit == long
        assert (dog.limit, dog.doing) == (short, "step 2")
    assert dog.limit == (0.0, "")


def test_patience_within_the_first_step_keeps_the_long_limit_for_it(runtime: Runtime) -> None:
    with runtime.steps():
        runtime.beat("step 1")
        with runtime.patience("a checkpoint"):
            pass
        assert runtime._of_watchdog.limit == (600, "run.timeout_seconds")
        runtime.beat("step 2")
        assert runtime._of_watchdog.limit == (60, "run.hang_seconds")


def test_beats_cost_next_to_nothing(runtime: Runtime) -> None:
    with runtime.steps():
        began = time.perf_counter()
        for _ in range(10_000):
            runtime.beat("step")
        assert (time.perf_counter() - began) / 10_000 < 20e-6


def test_an_error_carries_what_there_is_to_say_and_says_it_once(runtime: Runtime) -> None:
    first, same, other = DataError("no such part"), DataError("no such part"), ValueError("bad")
    for error in (first, same, other, first):
        runtime.explain(error)
    told = [explanation_of(error) for error in (first, same, other)]
    assert [known and known.is_first for known in told] == [True, False, True]
    assert [known and (known.exit_code, known.sentence) for known in told] == [
        (2, "no such part"),
        (2, "no such part"),
        (1, "ValueError: bad"),
    ]
    store = runtime._store
    assert store is not None
    recorded = store.failure()
    assert recorded is not None
    assert recorded["sentence"].endswith(" failed at start: no such part") and recorded["ranks"] == [0]


@pytest.mark.parametrize(
    ("asked", "by_hand"),
    [
        ([("a", False), ("a", False), ("b", False)], False),
        ([("a", True), ("a", True), ("b", False), ("b", False)], False),  # by the torchrun of one host
        ([("a", True), ("a", True)], False),
        ([("a", True), ("a", False)], True),
        ([("a", True), ("a", True), ("b", False), ("b", True)], True),
    ],
)
def test_torchrun_asks_all_ranks_of_its_host_to_stop(asked: list[tuple[str, bool]], by_hand: bool) -> None:
    assert _asked_by_hand(asked) == by_hand
