"""Quantised tables: logits as of float tables but for the rows' rounding; what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from configs.errors import CheckpointError, ConfigError
from modules.tables import TableSpec, build_tables
from tests.support.runs import small_run
from tests.support.stored_checkpoints import DENSE, ROWS, TABLE, TEXT, state, store
from trainer import quantised_tables
from trainer.built_task import BuiltTask, build_task
from trainer.checkpoints.manifest import read_manifest
from trainer.data.reading.batch import Batch, Rows, make_batch
from trainer.data.reading.source import SourceFeatures
from trainer.quantised_tables import QuantisedTables, check_memory, quantised_bytes, quantised_model

CPU = torch.device("cpu")
FEATURES = SourceFeatures(dense_names=("I1",), table_rows=ROWS, dictionary="d1")


def built(*words: str) -> BuiltTask:
    return build_task(small_run("--members.solo.numeric=dense", *words, text=TEXT), features=FEATURES)


def some_batch() -> Batch:
    """Four rows, the last one padding: bags of 2, 0 and 1 ids of C1, of 1, 3 and 0 of C2."""
    draw = torch.Generator().manual_seed(3)
    rows = Rows(
        dense=torch.randn(3, 1, generator=draw).numpy(),
        values=torch.tensor([9, 3, 4, 0, 5, 5, 1], dtype=torch.int32).numpy(),
        lengths=torch.tensor([[2, 0, 1], [1, 3, 0]], dtype=torch.int32).numpy(),
        labels=torch.tensor([1.0, 0.0, 0.0]).numpy(),
        part=torch.zeros(3, dtype=torch.int32).numpy(),
        row=torch.arange(3).numpy(),
    )
    return make_batch(rows, keys=list(ROWS), num_rows=4, loss_weight=1.0)


def float_task(tensors: dict[str, Tensor], *words: str) -> torch.nn.Module:
    plain = built(*words)
    plain.task.ensemble.tables = build_tables(plain.specs, device="cpu")
    weights = {key.removeprefix("model/"): value for key, value in tensors.items() if key.startswith("model/")}
    plain.task.load_state_dict(weights)
    return plain.task.eval()


def loaded(folder: Path, dtype: str, *words: str) -> torch.nn.Module:
    return quantised_model(built(*words), read_manifest(str(folder)), dtype=dtype, device=CPU, say=print)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 4e-3), ("int8", 5e-2)])
def test_a_batch_gives_what_the_float_task_gives(dtype: str, tolerance: float, tmp_path: Path) -> None:
    tensors = state()
    folder = store(tmp_path / "a", tensors, pieces=(2, 2))
    with torch.no_grad():
        _, expected = float_task(tensors)(some_batch())
        loss, output = loaded(folder, dtype)(some_batch())
    assert output.logits_BM.shape == (4, 2) and output.logits_BM.dtype == torch.float32
    torch.testing.assert_close(output.logits_BM, expected.logits_BM, rtol=0, atol=tolerance)
    torch.testing.assert_close(output.losses_M, expected.losses_M, rtol=0, atol=3 * tolerance)
    torch.testing.assert_close(loss, output.losses_M.sum())
    assert not torch.equal(output.logits_BM, expected.logits_BM)  # or the rows were never rounded


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_rows_are_rounded_by_half_a_step(dtype: str, device: str) -> None:
    """Odd dims, one column, a feature of several tables, repeated ids, empty bags."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    draw = torch.Generator().manual_seed(1)
    specs = [spec("a", "C1", 7, 5), spec("b", "C1", 7, 1), spec("a", "C2", 3, 5), spec("b", "C2", 3, 8)]
    tables = QuantisedTables(specs, dtype=dtype, device=torch.device(device))  # type: ignore[arg-type]
    weights = {one.name: torch.randn(one.num_rows, one.dim, generator=draw) for one in specs}
    for name, rows in weights.items():
        tables.fill(name, rows.split(2))
    values = torch.tensor([6, 6, 0, 2, 2, 1, 0], dtype=torch.int32)
    lengths = torch.tensor([2, 0, 1, 0, 1, 3], dtype=torch.int32)
    sparse = KeyedJaggedTensor(keys=["C1", "C2"], values=values, lengths=lengths).to(torch.device(device))
    pooled = {key: value.cpu() for key, value in tables(sparse).to_dict().items()}
    assert list(pooled) == ["C1@a/C1", "C1@b/C1", "C2@a/C2", "C2@b/C2"]
    bags = {"C1": [[6, 6], [], [0]], "C2": [[], [2], [2, 1, 0]]}
    for key, value in pooled.items():
        feature, _, name = key.partition("@")
        exact = torch.stack([weights[name][bag].sum(dim=0) for bag in bags[feature]])
        assert value.shape == exact.shape
        range_of_rows = weights[name].amax(dim=1) - weights[name].amin(dim=1)
        # The rounding of a weight; of int8 scale and bias, too, are float16.
        step = range_of_rows.max() / 255 if dtype == "int8" else 0.0
        at_most = 3 * (step / 2 + 2**-10 * weights[name].abs().max())
        assert (value - exact).abs().max() <= at_most, (key, value, exact)


def spec(group: str, feature: str, num_rows: int, dim: int) -> TableSpec:
    return TableSpec(
        group=group,
        feature=feature,
        num_rows=num_rows,
        dim=dim,
        optimizer="sgd",
        lr=0.1,
        eps=1e-8,
        init_bound=0.1,
        seed=1,
        placement="auto",
    )


@pytest.mark.parametrize(
    ("dtype", "weight", "told"),
    [("int8", float("nan"), "nan"), ("fp16", 70_000.0, "70000.0"), ("int8", float("-inf"), "inf")],
)
def test_a_weight_that_rows_cannot_hold_is_refused(dtype: str, weight: float, told: str, tmp_path: Path) -> None:
    tensors = state()
    tensors[TABLE.format("shared/C2")][4, 1] = weight
    folder = store(tmp_path / "a", tensors)
    with pytest.raises(CheckpointError, match=rf"table shared/C2: row 4 has the weight {told}, .*score\.tables"):
        loaded(folder, dtype)


def test_tables_that_do_not_fit_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [spec("a", "C1", 1_000_000, 16)]
    assert quantised_bytes(specs, dtype="int8", device=CPU) == 20_000_000
    assert quantised_bytes(specs, dtype="fp16", device=torch.device("cuda")) == 32_000_000
    monkeypatch.setattr(quantised_tables, "available_bytes", lambda _device: 39_999_999)
    check_memory(specs, dtype="int8", device=CPU)
    with pytest.raises(ConfigError, match=r"score\.tables: int8 tables of 2 ranks on this host take 0\.04 GB"):
        check_memory(specs, dtype="int8", device=CPU, ranks_beside=2)
    monkeypatch.setattr(quantised_tables, "available_bytes", lambda _device: 10)
    monkeypatch.setattr(quantised_tables, "QuantisedTables", None)
    with pytest.raises(ConfigError, match=r"score\.tables: fp16 tables of a rank take .* take int8, or sharded"):
        loaded(store(tmp_path / "a", state()), "fp16")


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    tensors = state()
    tensors[TABLE.format("solo/C1")] = torch.zeros(10, 8)
    with pytest.raises(CheckpointError, match=r"solo/C1\.weight: a tensor of shape \[10, 8\] in the checkpoint"):
        loaded(store(tmp_path / "a", tensors), "int8")
    tensors = state()
    del tensors[DENSE.format("deep.mlp.layers.0.bias")]
    with pytest.raises(CheckpointError, match=r"deep\.mlp\.layers\.0\.bias: nothing in the checkpoint"):
        loaded(store(tmp_path / "b", tensors), "int8")
