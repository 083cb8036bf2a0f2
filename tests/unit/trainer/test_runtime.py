"""Runtime: one rank of one, its process group, and errors that every rank would see."""

from __future__ import annotations

import signal

import pytest
import torch
import torch.distributed as dist

from configs.errors import EXIT_INTERRUPTED, ConfigError, DataError
from configs.schema import Run
from tests.unit.trainer.ranks import one_rank
from trainer.runtime import ProcessPlace, Runtime


def test_a_plain_start_is_rank_0_of_1() -> None:
    assert ProcessPlace.from_environment() == ProcessPlace(
        rank=0, world_size=1, local_rank=0, local_world_size=1, attempt=0
    )


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4, "TORCHELASTIC_RESTART_COUNT": 2}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    assert ProcessPlace.from_environment() == ProcessPlace(
        rank=5, world_size=8, local_rank=1, local_world_size=4, attempt=2
    )
    # The rank in the job decides who speaks, not the rank on the host.
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
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGINT)
    assert ended.value.code == EXIT_INTERRUPTED == 130


def test_before_there_is_something_to_save_a_signal_ends_the_process() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with one_rank(Run(device="cpu")):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
