"""Loading: the ranks' slices make up the global batch, each row once, whatever the world."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.data.reading.batch import Batch, Rows
from trainer.data.reading.loading import BatchReader, slice_size
from trainer.data.reading.order import RowOrder
from trainer.data.reading.source import SourceFeatures, SourcePart

KEYS = {"C1": 1_000, "C2": 1_000}


class NumberedSource:
    """Rows whose every value tells their number."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.features = SourceFeatures(dense_names=("I1",), table_rows=KEYS, dictionary="")
        self.parts = (SourcePart(name="all", num_rows=num_rows, files={}),)
        self.fetched: list[range] = []

    def read(self, rows: range | NDArray[np.int64]) -> Rows:
        rows = np.asarray(rows, dtype=np.int64)
        return Rows.of_single_ids(
            np.stack([rows, rows + 1], axis=1).astype(np.int32),
            dense=rows[:, None].astype(np.float32),
            labels=(rows % 2).astype(np.float32),
            part=np.zeros(len(rows), dtype=np.int32),
            row=rows,
        )

    def fetch(self, rows: range) -> None:
        self.fetched.append(rows)


def batches(num_rows: int, *, batch_size: int, world_size: int, order: RowOrder, first: int = 0) -> list[list[Batch]]:
    """[step][rank]."""
    of_rank = [
        list(
            BatchReader(
                source=NumberedSource(num_rows), batch_size=batch_size, rank=rank, world_size=world_size
            ).batches(order, first_row=first)
        )
        for rank in range(world_size)
    ]
    return [list(step) for step in zip(*of_rank, strict=True)]


def real_rows(batch: Batch) -> list[int]:
    return batch.row_B[batch.mask_B > 0].tolist()


@given(
    num_rows=st.integers(1, 60),
    batch_size=st.integers(1, 25),
    world_size=st.sampled_from([1, 2, 3, 8]),
    window=st.integers(0, 30),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_the_slices_make_up_the_global_batch(
    num_rows: int, batch_size: int, world_size: int, window: int, data: st.DataObject
) -> None:
    order = RowOrder(num_rows=num_rows, seed=1, window=window)
    first = data.draw(st.integers(0, num_rows - 1))
    steps = batches(num_rows, batch_size=batch_size, world_size=world_size, order=order, first=first)
    assert len(steps) == -(-(num_rows - first) // batch_size)
    for index, step in enumerate(steps):
        start = first + index * batch_size
        expected = order.rows(start, start + batch_size).tolist()
        assert [row for batch in step for row in real_rows(batch)] == expected
        assert {len(batch.labels_B) for batch in step} == {slice_size(batch_size=batch_size, world_size=world_size)}
        assert {batch.sparse.stride() for batch in step} == {len(step[0].labels_B)}
        weights = torch.cat([batch.loss_weights_B for batch in step]).double()
        assert float(weights.sum()) == pytest.approx(world_size, rel=1e-6)
        for batch in step:
            real = batch.mask_B > 0
            assert torch.allclose(batch.loss_weights_B[real], torch.tensor(world_size / len(expected)))
            assert not batch.loss_weights_B[~real].any()
            lengths = batch.sparse.lengths().view(len(KEYS), -1)
            assert torch.equal(lengths, batch.mask_B.int().expand(len(KEYS), -1))
            assert batch.sparse.values().view(len(KEYS), -1).tolist() == [
                real_rows(batch),
                [row + 1 for row in real_rows(batch)],
            ]
            assert torch.equal(batch.labels_B[real], batch.row_B[real] % 2)


def test_an_epoch_is_the_same_from_wherever_it_is_taken_up() -> None:
    order = RowOrder(num_rows=23, seed=2, window=9)
    whole = batches(23, batch_size=5, world_size=2, order=order)
    rest = batches(23, batch_size=5, world_size=2, order=order, first=10)
    for one, other in zip(whole[2:], rest, strict=True):
        assert [real_rows(batch) for batch in one] == [real_rows(batch) for batch in other]


def test_a_ragged_last_batch_leaves_a_rank_idle() -> None:
    steps = batches(9, batch_size=8, world_size=4, order=RowOrder(num_rows=9))
    assert [[len(real_rows(batch)) for batch in step] for step in steps] == [[2, 2, 2, 2], [1, 0, 0, 0]]


def test_rows_of_a_step() -> None:
    reader = BatchReader(source=NumberedSource(10), batch_size=4, rank=0, world_size=2)
    assert [reader.rows_of_step(first) for first in (0, 4, 8)] == [4, 4, 2]
    assert reader.num_rows == 10


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


@pytest.mark.parametrize(("window", "fetched_to"), [(0, 60_000), (10_000, 30_000)])
@pytest.mark.parametrize("batch_size", [1_000, 15_000])
def test_rows_are_fetched_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, window: int, fetched_to: int, batch_size: int
) -> None:
    monkeypatch.setattr("trainer.data.reading.loading._STRETCH_ROWS", 10_000)
    missed: list[int] = []

    class Watched(NumberedSource):
        def read(self, rows: range | NDArray[np.int64]) -> Rows:
            missed.extend(set(rows) - {row for run in self.fetched for row in run})
            return super().read(rows)

    source = Watched(100_000)
    order = RowOrder(num_rows=100_000, seed=1, window=window)
    reader = BatchReader(source=source, batch_size=batch_size, rank=1, world_size=2)
    made = reader.batches(order, first_row=12_000)
    next(made)
    fetched_to += 10_000 if batch_size > 10_000 else 0
    ahead = set(order.rows(10_000, fetched_to).tolist())
    assert eventually(lambda: {row for run in source.fetched for row in run} == ahead), "what is read, and some more"
    assert len(list(made)) == -(-88_000 // batch_size) - 1
    assert missed == []
    assert {row for run in source.fetched for row in run} == set(order.rows(10_000, 100_000).tolist())
    assert sum(map(len, source.fetched)) == 90_000, "each row once"


def test_the_next_window_is_permuted_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out: list[tuple[int, str]] = []
    permuted = RowOrder._permuted

    def noted(self: RowOrder, window: int) -> NDArray[np.int64]:
        worked_out.append((window, threading.current_thread().name))
        return permuted(self, window)

    monkeypatch.setattr(RowOrder, "_permuted", noted)
    made = BatchReader(source=NumberedSource(300), batch_size=10, rank=0, world_size=1).batches(
        RowOrder(num_rows=300, seed=1, window=100)
    )
    for _ in range(5):
        next(made)
    assert eventually(lambda: len(worked_out) == 2)
    assert [window for window, _ in sorted(worked_out)] == [0, 1], "window 1 while window 0 is read"
    list(made)
    assert sorted(window for window, _ in worked_out) == [0, 1, 2], "each once"
    assert all(thread.startswith("look-ahead") for _, thread in worked_out)


def test_what_goes_wrong_ahead_is_not_lost() -> None:
    class Broken(NumberedSource):
        def fetch(self, rows: range) -> None:
            raise OSError("the disk is gone")

    made = BatchReader(source=Broken(10_000), batch_size=1, rank=0, world_size=1).batches(RowOrder(num_rows=10_000))
    with pytest.raises(OSError, match="the disk is gone"):
        next(made)


def test_no_thread_is_left_behind() -> None:
    for window in (0, 20):
        made = BatchReader(source=NumberedSource(100), batch_size=5, rank=0, world_size=1).batches(
            RowOrder(num_rows=100, seed=1, window=window)
        )
        next(made)
        made.close()
    assert eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("look-ahead")])
