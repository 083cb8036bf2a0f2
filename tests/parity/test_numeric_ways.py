"""Numbers as a vector, as fields and as ids in one job: the same in training, resumed, scored and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from configs.schema import RunConfig
from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import settings_for
from tests.support.ranks import RankPool
from tests.support.runs import small_run
from tests.support.state import assert_bit_equal
from tests.support.stored_checkpoints import quiet
from tests.support.training import score_run, train_run
from trainer.checkpoints.export import MemberExport, load_member
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.preparation import prepare
from trainer.data.reading.batch import make_batch
from trainer.data.reading.opening import open_scoring_source

NET = 'arch = { kind = "mlp", hidden = [8], batch_norm = true }'
TEXT = f"""
[data]
shuffle_window = 64
train = ["a"]
valid = ["b"]
[train]
batch_size = 24
until = {{ steps = 14 }}
[tables.shared]
dim = 8
lr = 0.1
[tables.own]
dim = 4
lr = 0.1
[members.vector]
{NET}
[members.fields]
numeric = "scaled"
{NET}
[members.ids]
numeric = "ids"
{NET}
[members.weights]
tables = "own"
numeric = "scaled"
arch = {{ kind = "lr" }}
[members.pairs]
tables = "own"
arch = {{ kind = "fm" }}
"""
MEMBERS = ("vector", "fields", "ids", "weights", "pairs")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("both_ways")
    logs = [
        write_log(folder / f"{part}.tsv", synthetic_lines(rows, seed=rows)) for part, rows in (("a", 200), ("b", 50))
    ]
    output = folder / "prepared"
    prepare(settings_for(logs, output, input_format=CriteoFormat(numerics="both")))
    return str(output)


def run(data: str, *words: str) -> RunConfig:
    return small_run(f"--data.root={data}", *words, text=TEXT)


@pytest.mark.parametrize("placement", [pytest.param("data_parallel", marks=pytest.mark.slow), "row_wise"])
def test_resumed_scored_and_exported_are_one(
    data: str, placement: str, ranks: Callable[[int], RankPool], tmp_path: Path
) -> None:
    placed = tuple(f"--tables.{group}.placement={placement}" for group in ("shared", "own"))
    pool = ranks(2)
    whole, _ = pool.run(train_run, run(data, *placed), f"{tmp_path}/whole")[0]
    pool.run(train_run, run(data, *placed, "--train.until={steps=5}"), f"{tmp_path}/parts")
    resumed, _ = pool.run(train_run, run(data, *placed), f"{tmp_path}/parts")[0]
    assert_bit_equal(whole, resumed)
    tables = {
        key.partition("bags.")[2].removesuffix(".weight") for key in whole if key.startswith("model/") and "bags" in key
    }
    own = {table for table in tables if not table.startswith("shared/")}
    assert {"shared/C1", "shared/I1_id", "pairs/C1", "pairs+first_order/C1", "weights+first_order/C1"} <= tables
    assert not any("_id" in table or table.startswith("weights/") for table in own)  # nobody there reads them

    config = run(data, "--score.parts=['b']")
    checkpoint = StoredCheckpoint.open(f"{tmp_path}/whole")
    ranks(1).run(score_run, config, checkpoint.folder, f"{tmp_path}/predictions")
    (file,) = (tmp_path / "predictions").glob("*.parquet")
    scored = pq.read_table(file)
    source = open_scoring_source(config.data, parts=("b",))
    rows = source.read(range(source.num_rows))
    batch = make_batch(rows, keys=list(source.features.table_rows), num_rows=len(rows), loss_weight=1.0)
    bags = {name: (batch.sparse[name].values(), batch.sparse[name].offsets()) for name in source.features.table_rows}
    for member in MEMBERS:
        path = tmp_path / f"{member}.safetensors"
        MemberExport.of(checkpoint, member=member).write(str(path), advance=quiet)
        loaded = load_member(str(path))
        dense = batch.dense_BN[:, : len(loaded.facts.dense_features)]
        assert dense.shape[1] == (0 if member == "ids" else 13)
        with torch.no_grad():
            logits = loaded.model(dense, bags).numpy()
        assert logits.std() > 1e-3
        np.testing.assert_allclose(
            logits, scored.column(f"logit_{member}").to_numpy(), rtol=1e-5, atol=1e-6, err_msg=member
        )
