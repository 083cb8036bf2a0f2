"""Initial weights: pinned, uniform, and the same whichever way a table is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from configs.ensemble_schema import COLUMN_PLACEMENTS
from modules.tables import FIRST_ORDER_DIM
from sharding.constraints import SHARDING_TYPES
from sharding.initialisation import TableInit, initial_block, initialise_tables
from sharding.shards import table_shards
from tests.unit.sharding.world_of_one import shard_for_one, two_member_specs, two_member_task

_64 = 2**64


def block(init: TableInit, rows: range, columns: range, *, dim: int) -> NDArray[np.float32]:
    return initial_block(
        init,
        first_row=rows.start,
        num_rows=len(rows),
        first_column=columns.start,
        num_columns=len(columns),
        dim=dim,
    )


def splitmix64(seed: int, index: int) -> int:
    """The `index`-th number, from 0, of the generator of Steele, Lea and Flood that starts at `seed`."""
    state = (seed + (index + 1) * 0x9E3779B97F4A7C15) % _64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % _64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % _64
    return state ^ state >> 31


def test_the_generator_is_splitmix64() -> None:
    # The sequence that the authors' reference program prints for the seed 1234567.
    assert [splitmix64(1234567, i) for i in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("first_row", [0, 2**31, 10**11])
def test_a_weight_is_a_function_of_seed_and_place(seed: int, first_row: int) -> None:
    found = block(TableInit(seed=seed, bound=0.25), range(first_row, first_row + 3), range(5), dim=5)
    for at in range(3):
        for column in range(5):
            bits = splitmix64(seed, (first_row + at) * 5 + column) >> 40
            assert found[at, column] == np.float32((bits / 2**23 - 1.0) * 0.25)


def test_the_first_weights_never_change() -> None:
    found = block(TableInit(seed=1, bound=1.0), range(2), range(4), dim=4)
    assert found.dtype == np.float32
    assert found.tolist() == [
        [0.13312304019927979, 0.49156343936920166, 0.9420053958892822, -0.1112816333770752],
        [-0.11147069931030273, 0.5257886648178101, 0.754697322845459, 0.046134352684020996],
    ]


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_shard_is_a_slice_of_the_whole(data: st.DataObject) -> None:
    num_rows, dim = data.draw(st.integers(1, 50)), data.draw(st.sampled_from([4, 8, 12]))
    init = TableInit(seed=data.draw(st.integers(0, 2**63 - 1)), bound=data.draw(st.floats(0, 2)))
    top, left = data.draw(st.integers(0, num_rows)), data.draw(st.integers(0, dim))
    bottom, right = data.draw(st.integers(top, num_rows)), data.draw(st.integers(left, dim))
    whole = block(init, range(num_rows), range(dim), dim=dim)
    piece = block(init, range(top, bottom), range(left, right), dim=dim)
    assert np.array_equal(piece, whole[top:bottom, left:right])


def test_weights_are_uniform() -> None:
    bound = 0.02
    weights = block(TableInit(seed=77, bound=bound), range(50_000), range(16), dim=16).astype(np.float64) / bound
    assert -1.0 <= weights.min() < -0.9999 and 0.9999 < weights.max() < 1.0
    assert abs(weights.mean()) < 4 / np.sqrt(3 * weights.size)
    assert weights.var() == pytest.approx(1 / 3, rel=0.005)
    counts, _ = np.histogram(weights, bins=64, range=(-1, 1))
    expected = weights.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # 63 degrees of freedom: once in 10^5
    assert abs(np.corrcoef(weights[:, 0], weights[:, 1])[0, 1]) < 0.02
    assert abs(np.corrcoef(weights[:-1, 0], weights[1:, 0])[0, 1]) < 0.02


def test_a_bound_of_zero_gives_zeros() -> None:
    assert not block(TableInit(seed=3, bound=0.0), range(9), range(4), dim=4).any()


def test_seeds_give_unrelated_tables() -> None:
    first, second = (block(TableInit(seed=s, bound=1.0), range(500), range(8), dim=8) for s in (10, 11))
    assert (first == second).mean() < 0.001
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.07


@pytest.mark.parametrize("placement", SHARDING_TYPES)
def test_a_sharded_models_tables_are_filled(placement: str, group: dist.ProcessGroup) -> None:
    """Where columns are split, all the pieces of a table lie on this one rank."""
    specs = two_member_specs()
    placements = {table.name: placement if table.dim > FIRST_ORDER_DIM else "row_wise" for table in specs}
    model = shard_for_one(two_member_task(specs), placements, group=group)
    inits = {table.name: TableInit(seed=index, bound=0.3) for index, table in enumerate(specs)}
    initialise_tables(model.state_dict(), inits=inits)
    seen = {}
    for name, shards in table_shards(model.state_dict()).items():
        whole = np.full((shards.num_rows, shards.dim), np.nan, dtype=np.float32)
        for piece in shards.local:
            rows, columns = piece.tensor.shape
            whole[piece.first_row : piece.first_row + rows, piece.first_column : piece.first_column + columns] = (
                piece.tensor
            )
        assert np.array_equal(whole, block(inits[name], range(shards.num_rows), range(shards.dim), dim=shards.dim))
        seen[name] = len(shards.local)
    assert set(seen) == set(inits)
    assert {seen[table.name] for table in specs if table.dim > FIRST_ORDER_DIM} == {
        2 if placement in COLUMN_PLACEMENTS else 1
    }


def test_blocks_of_rows_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharding.initialisation._ROWS_AT_ONCE", 4)
    init, weight = TableInit(seed=5, bound=1.0), torch.zeros(11, 8)
    initialise_tables({"tables.embedding_bags.a/C1.weight": weight}, inits={"a/C1": init})
    assert np.array_equal(weight.numpy(), block(init, range(11), range(8), dim=8))


def test_a_table_that_the_model_lacks_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="a/C2"):
        initialise_tables({}, inits={"a/C2": TableInit(seed=1, bound=1.0)})
