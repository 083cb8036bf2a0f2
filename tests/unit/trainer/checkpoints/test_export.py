"""Export: one member's file holds what is needed to build it, and what does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from configs.errors import CheckpointError, ConfigError
from modules.contracts import MemberInput
from tests.support.stored_checkpoints import DENSE, ROWS, TABLE, model_facts, quiet, state, store
from trainer.checkpoints import state_files
from trainer.checkpoints.export import MemberExport, load_member
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint


def exported(tmp_path: Path, member: str) -> Path:
    folder = store(tmp_path / f"of_{member}", state(), pieces=(2, 2))
    path = tmp_path / f"{member}.safetensors"
    MemberExport.of(StoredCheckpoint.open(str(folder)), member=member).write(str(path), advance=quiet)
    return path


def test_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_files, "BLOCK_BYTES", 3 * 4 * 4)
    path, tensors = exported(tmp_path, "solo"), state()
    prefix = DENSE.format("solo.")
    expected = {f"member/{key.removeprefix(prefix)}": value for key, value in tensors.items() if key.startswith(prefix)}
    expected |= {f"tables/{name}": tensors[TABLE.format(f"solo/{name}")] for name in ROWS}
    expected |= {f"first_order/{name}": tensors[TABLE.format(f"solo+first_order/{name}")][:, :1] for name in ROWS}
    found = load_file(str(path))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    arch = json.loads(metadata.pop("architecture"))
    assert (arch["kind"], arch["hidden"]) == ("deepfm", [3])
    assert metadata == {
        "format": "chorus-member",
        "format_version": "2",
        "member": "solo",
        "group": "solo",
        "dim": "4",
        "numeric": "dense",
        "dense_features": '["I1"]',
        "table_rows": '{"C1": 10, "C2": 6}',
        "dictionary": "d1",
        "step": "7",
    }
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["of_solo", "solo.safetensors"]


@pytest.mark.parametrize("member", ["deep", "solo"])
def test_it_is_built_again(member: str, tmp_path: Path) -> None:
    loaded, tensors = load_member(str(exported(tmp_path, member))), state()
    assert (loaded.facts.member, loaded.facts.step, loaded.facts.dictionary) == (member, 7, "d1")
    assert list(loaded.facts.table_rows) == list(ROWS)
    assert not loaded.model.training
    group = loaded.facts.group
    ids = {"C1": torch.tensor([9, 3]), "C2": torch.tensor([0, 5])}
    dense = torch.randn(2, 1)
    embedded = torch.stack([tensors[TABLE.format(f"{group}/{name}")][ids[name]] for name in ROWS], dim=1)
    first_order = None
    if member == "solo":
        weights = [tensors[TABLE.format(f"{group}+first_order/{name}")][ids[name]][:, 0] for name in ROWS]
        first_order = torch.stack(weights, dim=1)
    expected = loaded.model.member(MemberInput(dense, embedded, first_order))
    torch.testing.assert_close(loaded.model(dense, ids), expected)
    for name, value in loaded.model.member.state_dict().items():
        assert torch.equal(value, tensors[DENSE.format(f"{member}.{name}")]), name


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    checkpoint = StoredCheckpoint.open(str(store(tmp_path / "a", state())))
    with pytest.raises(CheckpointError, match="--member: no member 'wide' in .*; choose one of deep, solo"):
        MemberExport.of(checkpoint, member="wide")
    (tmp_path / "there").write_text("mine")
    export = MemberExport.of(checkpoint, member="deep")
    with pytest.raises(CheckpointError, match="is there already"):
        export.write(str(tmp_path / "there"), advance=quiet)
    assert (tmp_path / "there").read_text() == "mine"
    next((tmp_path / "a" / "state").glob("rank_0_0.*")).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        export.write(str(tmp_path / "new"), advance=quiet)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "there"]


def changed(path: Path, *, tensors: dict | None = None, metadata: dict | None = None, without: str = "") -> Path:  # type: ignore[type-arg]
    with safe_open(str(path), framework="pt") as file:
        kept = {name: file.get_tensor(name).clone() for name in file.keys() if name != without}  # noqa: SIM118
        facts = file.metadata()
    save_file(kept | (tensors or {}), str(path), metadata=facts | (metadata or {}))
    return path


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_member(str(tmp_path / "nothing"))
    (tmp_path / "text").write_text("no tensors here")
    with pytest.raises(CheckpointError, match="not a safetensors file, or damaged"):
        load_member(str(tmp_path / "text"))
    save_file({"a": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(CheckpointError, match="not an exported member"):
        load_member(str(tmp_path / "other.safetensors"))
    path = exported(tmp_path, "solo")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        load_member(str(path))
    cases: list[tuple[dict, type[Exception], str]] = [  # type: ignore[type-arg]
        ({"metadata": {"format_version": "1"}}, CheckpointError, "format version 1, this program reads 2"),
        ({"metadata": {"table_rows": "[1"}}, CheckpointError, "not an exported member"),
        ({"metadata": {"table_rows": '{"C1": 10, "C2": 7}'}}, CheckpointError, r"a table of \[6, 4\], not \[7, 4\]"),
        ({"metadata": {"architecture": '{"kind": "deepfm", "hidden": [5]}'}}, CheckpointError, "size mismatch"),
        ({"metadata": {"architecture": '{"kind": "nonesuch"}'}}, ConfigError, "'nonesuch' is not a member"),
        ({"metadata": {"architecture": '{"kind": "deepfm", "hiden": [3]}'}}, ConfigError, "did you mean 'hidden'"),
        ({"without": "tables/C2"}, CheckpointError, "tables are not those|its tensors are not those"),
        ({"without": "first_order/C2"}, CheckpointError, "its tensors are not those"),
        ({"without": "member/deep.layers.0.bias"}, CheckpointError, "Missing key"),
    ]
    for change, kind, told in cases:
        path.write_bytes(whole)
        with pytest.raises(kind, match=told):
            load_member(str(changed(path, **change)))


def test_the_order_of_the_tables_is_the_models(tmp_path: Path) -> None:
    """Whatever the alphabet says: the member's first layer reads the columns in that order."""
    order = {"C2": 6, "C1": 10}
    facts = model_facts(table_rows=order)
    facts["inputs"]["deep"]["features"] = list(order)
    folder = store(tmp_path / "a", state(), model=facts)
    path = tmp_path / "deep.safetensors"
    MemberExport.of(StoredCheckpoint.open(str(folder)), member="deep").write(str(path), advance=quiet)
    assert load_member(str(path)).model.features == ("C2", "C1")
