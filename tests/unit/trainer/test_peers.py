"""Peer: a process is known by more than its number."""

from __future__ import annotations

import dataclasses
import os
import signal

from tests.support.processes import sleeping, wait_until
from trainer.peers import Peer


def test_a_process_is_there_stopped_or_gone() -> None:
    with sleeping() as process:
        peer = Peer.of(process.pid, rank=1)
        assert peer.is_beside(Peer.this_process(0))
        assert peer.state() == "there"
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: peer.state() == "stopped")
        peer.kill()
        assert process.wait() == -signal.SIGKILL
        assert peer.state() == "gone"
        peer.kill()  # nothing to do


def test_one_that_has_ended_and_was_not_waited_for_is_gone() -> None:
    with sleeping() as process:
        peer = Peer.of(process.pid, rank=1)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert peer.state() == "gone"


def test_another_process_of_the_same_number_is_left_alone() -> None:
    with sleeping() as process:
        earlier = dataclasses.replace(Peer.of(process.pid, rank=1), started=7)
        assert earlier.state() == "gone"
        earlier.kill()
        assert process.poll() is None


def test_only_processes_of_one_boot_and_one_space_of_numbers_are_beside_each_other() -> None:
    here = Peer.this_process(0)
    assert here.pid == os.getpid() and str(here) == f"rank 0 ({here.host}, pid {os.getpid()})"
    assert not dataclasses.replace(here, machine="another boot").is_beside(here)
    unknown = dataclasses.replace(here, machine="")
    assert not unknown.is_beside(unknown) and unknown.home == here.host
