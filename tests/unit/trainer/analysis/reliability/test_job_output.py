"""A job's phase is read from what it prints."""

from __future__ import annotations

import pytest

from trainer.analysis.reliability.job_output import JobOutput


@pytest.fixture
def printed(tmp_path):
    """An output, and what appends to it."""
    path = tmp_path / "output.txt"

    def say(text: str) -> None:
        with open(path, "a") as file:
            file.write(text)
        output.read()

    output = JobOutput(str(path), evaluates=lambda step: step % 2 == 0)
    return output, say


def test_a_job_goes_through_its_phases(printed):
    output, say = printed
    output.begin_launch()
    output.read()  # there is no file yet
    assert output.phase == "launching"
    output.begin_attempt()
    say("[run]\nname = 'x'\n")
    assert (output.phase, output.stepped_in_attempt) == ("importing", False)
    say("step 1/4  900 rows/s\n")
    assert (output.phase, output.step, output.stepped_in_attempt) == ("steps", 1, True)
    say("step 2/4  900 rows/s\n")
    assert output.phase == "evaluation"
    say("  eval auc/log_loss_nats  a 0.5/0.6\n")
    assert output.phase == "steps"
    say("checkpoint: /x/step_2  (1,024.5 MiB in 1.5 s)\n")
    assert output.write_seconds == [1.5]
    say("step 4/4  900 rows/s\n  eval auc/log_loss_nats  a 0.5/0.6\ntrained 4 rows in 0:01 (4 rows/s)\n")
    assert output.phase == "end"


def test_half_a_line_waits_for_the_rest(printed):
    output, say = printed
    say("step 1/4  x\nstep 2")
    assert output.step == 1
    say("0/40  x\n")
    assert output.step == 20


def test_a_restart_keeps_the_highest_step(printed):
    output, say = printed
    say("step 7/9  x\n")
    output.begin_attempt()
    assert not output.stepped_in_attempt
    say("resuming from y: step 4, epoch 0, row 9\nstep 5/9  x\n")
    assert (output.step, output.highest_step, output.stepped_in_attempt) == (5, 7, True)
