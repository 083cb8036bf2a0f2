"""States are compared bit by bit, and merged sums with their definition."""

from __future__ import annotations

import torch

from tests.unit.trainer.analysis.reliability.stored_checkpoint import trained_state, write_checkpoint
from trainer.analysis.reliability.reshard_compare import StoredState, compare_continued, compare_loaded

SUM, SUMS = "optimizer/tables/g/f/sum", "optimizer/tables/g/f/column_sums"


def _two(tmp_path, before, after, **facts):
    return write_checkpoint(tmp_path / "a", before, **facts), write_checkpoint(tmp_path / "b", after)


def test_the_same_bits_are_equal(tmp_path):
    found = compare_loaded(*_two(tmp_path, trained_state(), trained_state()))
    assert (found.outcome, found.reason) == ("equal", "")


def test_one_other_bit_is_a_failure(tmp_path):
    for key in trained_state():
        state = trained_state()
        state[key].view(-1)[-1] = torch.nextafter(state[key].view(-1)[-1], torch.tensor(9e9))
        found = compare_loaded(*_two(tmp_path / key, trained_state(), state))
        assert found.outcome == "FAILED" and found.reason == f"{key} differs"


def test_what_is_lost_or_new_is_a_failure(tmp_path):
    less = {key: value for key, value in trained_state().items() if key != SUM}
    found = compare_loaded(*_two(tmp_path / "1", trained_state(), less))
    assert found.outcome == "FAILED" and "lost: ['optimizer/tables/g/f/sum']" in found.reason
    found = compare_loaded(*_two(tmp_path / "2", less, trained_state()))
    assert found.outcome == "FAILED" and "new: ['optimizer/tables/g/f/sum']" in found.reason


def _with_pieces(values: list[float]) -> dict[str, torch.Tensor]:
    state = trained_state()
    del state[SUM]
    return state | {SUMS: torch.tensor(values)}


def test_sums_of_pieces_come_together_as_their_weighted_mean(tmp_path):
    # Pieces of 3 and of 1 column: (3 * a + b) / 4.
    before = _with_pieces([1.0, 2.0, 3.0, 5.0, 6.0, 7.0])
    facts = {"column_pieces": {"g/f": [[0, 3], [3, 1]]}}
    right = trained_state() | {SUM: torch.tensor([2.0, 3.0, 4.0])}
    assert compare_loaded(*_two(tmp_path / "1", before, right, **facts)).outcome == "mean"
    plain_mean = trained_state() | {SUM: torch.tensor([3.0, 4.0, 5.0])}
    found = compare_loaded(*_two(tmp_path / "2", before, plain_mean, **facts))
    assert found.outcome == "FAILED" and "is not the mean" in found.reason


def test_runs_that_went_on_are_equal_to_rounding_and_have_moved(tmp_path):
    start = write_checkpoint(tmp_path / "start", trained_state())
    moved = {key: value + 0.1 for key, value in trained_state().items()}
    slightly = {key: value + 1e-6 for key, value in moved.items()}
    other = {key: value + 1e-2 for key, value in moved.items()}
    folders = {
        name: write_checkpoint(tmp_path / name, state)
        for name, state in {"moved": moved, "slightly": slightly, "other": other, "same": trained_state()}.items()
    }
    found = compare_continued(folders["slightly"], folders["moved"], start=start)
    assert found.outcome == "equal" and 0.5e-6 < found.most_apart < 2e-6
    assert compare_continued(folders["other"], folders["moved"], start=start).outcome == "FAILED"
    still = compare_continued(folders["same"], folders["same"], start=start)
    assert "nothing was trained" in still.reason


def test_runs_of_other_progress_are_not_the_same(tmp_path):
    start = write_checkpoint(tmp_path / "start", {})
    one = write_checkpoint(tmp_path / "1", trained_state(), step=8)
    other = write_checkpoint(tmp_path / "2", trained_state(), step=9)
    assert compare_continued(one, other, start=start).outcome == "FAILED"


def test_a_state_of_zeros_is_no_trained_state(tmp_path):
    assert StoredState(write_checkpoint(tmp_path / "a", trained_state())).unlike_training() == ""
    untrained = trained_state() | {SUM: torch.zeros(3)}
    assert StoredState(write_checkpoint(tmp_path / "b", untrained)).unlike_training() == "sum"
