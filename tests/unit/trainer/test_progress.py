"""Progress: the steps left against a simulation of the run."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.interval_schema import Until
from trainer.progress import Progress


def finish(progress: Progress, until: Until, *, epoch_rows: int, batch_size: int) -> int:
    """Steps to the end, one by one, as the loop takes them."""
    steps = 0
    while (progress.step < until.steps) if until.steps is not None else (progress.epoch < (until.epochs or 0)):
        progress.advance(min(batch_size, epoch_rows - progress.row), epoch_rows=epoch_rows)
        steps += 1
    return steps


@given(
    epoch_rows=st.integers(1, 200),
    batch_size=st.integers(1, 230),
    until=st.one_of(
        st.builds(Until, steps=st.integers(1, 60)),
        st.builds(Until, epochs=st.integers(1, 4)),
    ),
    taken=st.integers(0, 80),
    earlier_batch=st.integers(1, 230),
)
@settings(max_examples=150, deadline=None)
def test_the_steps_left_are_those_taken(
    epoch_rows: int, batch_size: int, until: Until, taken: int, earlier_batch: int
) -> None:
    """Also after a resume with another batch size than before, and past the end."""
    progress = Progress()
    for _ in range(taken):
        progress.advance(min(earlier_batch, epoch_rows - progress.row), epoch_rows=epoch_rows)
    left = progress.steps_left(until, epoch_rows=epoch_rows, batch_size=batch_size)
    assert left == finish(progress, until, epoch_rows=epoch_rows, batch_size=batch_size)
    assert progress.steps_left(until, epoch_rows=epoch_rows, batch_size=batch_size) == 0


@given(epoch_rows=st.integers(1, 100), batch_size=st.integers(1, 120), epochs=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_every_row_is_counted_once_an_epoch(epoch_rows: int, batch_size: int, epochs: int) -> None:
    progress = Progress()
    steps = finish(progress, Until(epochs=epochs), epoch_rows=epoch_rows, batch_size=batch_size)
    assert progress.rows_total == epochs * epoch_rows
    assert (progress.step, progress.epoch, progress.row) == (steps, epochs, 0)


def test_progress_is_saved_whole() -> None:
    progress = Progress(step=3, epoch=1, row=7, rows_total=27)
    assert progress.as_json() == {"step": 3, "epoch": 1, "row": 7, "rows_total": 27}
    assert Progress(**progress.as_json()) == progress
