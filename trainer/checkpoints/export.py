"""Export: one member with its tables as a safetensors file, and back as a module of one process.

The file's tensors: `member/PARAMETER` as in the member's state_dict, for members that read embeddings `tables/FEATURE`
[rows, dim], and for those with a weight per id `first_order/FEATURE` [rows, 1]. Its metadata says what is needed to
build the member; `ExportedFacts` has their meaning.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs.errors import CheckpointError
from configs.loader import read_arch
from modules import members
from modules.member_fields import MemberFields
from modules.single_member import SingleMember
from modules.tables import FIRST_ORDER_SUFFIX
from trainer import storage
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.checkpoints.tensor_files import write_tensors
from trainer.checkpoints.verification import Advance

FORMAT = "chorus-member"
FORMAT_VERSION = 2
_MEMBER, _TABLES, _FIRST_ORDER = "member/", "tables/", "first_order/"


@dataclass(frozen=True, kw_only=True)
class ExportedFacts:
    """What an exported member is."""

    member: str
    architecture: Mapping[str, Any]  # its kind and keys, as in a configuration
    group: str  # of the tables in the run it comes from
    dim: int  # columns of its tables; 0: it reads weights per id alone
    numeric: str  # how it takes numeric features: dense, scaled, ids or none
    dense_features: tuple[str, ...]  # those that it reads as numbers, in the order of the columns
    table_rows: Mapping[str, int]  # id feature -> rows, in the order that the member reads them in
    dictionary: str  # hash of the dictionary that gave the ids
    step: int  # of the checkpoint

    def as_metadata(self) -> dict[str, str]:
        """As safetensors keeps it: text only, so what is not text is JSON."""
        return {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "member": self.member,
            "architecture": json.dumps(self.architecture),
            "group": self.group,
            "dim": str(self.dim),
            "numeric": self.numeric,
            "dense_features": json.dumps(self.dense_features),
            "table_rows": json.dumps(self.table_rows),
            "dictionary": self.dictionary,
            "step": str(self.step),
        }

    @staticmethod
    def of(metadata: Mapping[str, str] | None, *, path: str) -> ExportedFacts:
        """From a file's metadata.

        Raises:
            CheckpointError: they are not those of an exported member, or of another format version.
        """
        try:
            if metadata is None or metadata["format"] != FORMAT:
                raise ValueError("it has no format = " + FORMAT)
            if metadata["format_version"] != str(FORMAT_VERSION):
                raise ValueError(f"format version {metadata['format_version']}, this program reads {FORMAT_VERSION}")
            return ExportedFacts(
                member=metadata["member"],
                architecture=json.loads(metadata["architecture"]),
                group=metadata["group"],
                dim=int(metadata["dim"]),
                numeric=metadata["numeric"],
                dense_features=tuple(json.loads(metadata["dense_features"])),
                table_rows=json.loads(metadata["table_rows"]),
                dictionary=metadata["dictionary"],
                step=int(metadata["step"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: not an exported member ({error}); make one with tools/inspect_checkpoint.py export"
            ) from error


@dataclass(frozen=True, kw_only=True)
class MemberExport:
    """A member of a checkpoint, ready to be written.

    Attributes:
        keys: Tensor of the file -> tensor of the checkpoint.
    """

    source: StoredCheckpoint
    facts: ExportedFacts
    keys: Mapping[str, str]

    @staticmethod
    def of(source: StoredCheckpoint, *, member: str) -> MemberExport:
        """The member of that name.

        Raises:
            CheckpointError: there is none.
        """
        model, weights = source.manifest.model, source.table_weights()
        if member not in model["members"]:
            raise CheckpointError(
                f"--member: no member {member!r} in {source.folder}; choose one of {', '.join(model['members'])}"
            )
        group, fields = model["groups"][member], MemberFields.of_json(model["inputs"][member])
        features = fields.features
        tables = {f"{_TABLES}{feature}": weights[f"{group}/{feature}"] for feature in features * fields.embedded}
        first_order = {}
        dense = {f"{_MEMBER}{name}": key for name, key in source.member_weights(member).items()}
        facts = ExportedFacts(
            member=member,
            architecture=json.loads(model["members"][member]),
            group=group,
            dim=model["tables"][f"{group}/{features[0]}"][1] if tables else 0,
            numeric=fields.numeric,
            dense_features=tuple(model["dense_features"]) if fields.num_dense else (),
            table_rows={feature: model["table_rows"][feature] for feature in features},
            dictionary=model["dictionary"],
            step=source.manifest.step,
        )
        with torch.device("meta"):  # to ask the module what it reads
            if _build(facts, path=source.folder).first_order:
                first_order = {
                    f"{_FIRST_ORDER}{feature}": weights[f"{group}{FIRST_ORDER_SUFFIX}/{feature}"]
                    for feature in features
                }
        return MemberExport(source=source, facts=facts, keys=dense | tables | first_order)

    @property
    def num_bytes(self) -> int:
        """Bytes to read."""
        return self.source.num_bytes(list(self.keys.values()))

    def write(self, path: str, *, advance: Advance) -> None:
        """Writes the file, block by block; a local one has its name once it is whole.

        Args:
            path: A new file.
            advance: Told of the bytes that were read.

        Raises:
            CheckpointError: there is such a file, or the checkpoint cannot be read.
        """
        if storage.exists(path):
            raise CheckpointError(f"--output: {path!r} is there already; name a new file")
        temporary = path if storage.is_remote(path) else f"{path}.tmp"
        shapes = {}
        for name, key in self.keys.items():
            stored = self.source.index[key]
            narrow = name.startswith(_FIRST_ORDER)
            shapes[name] = (stored.dtype, (stored.shape[0], 1) if narrow else stored.shape)
        try:
            write_tensors(temporary, shapes, self._blocks(advance), metadata=self.facts.as_metadata())
        except BaseException:
            with contextlib.suppress(OSError):
                storage.remove_file(temporary)
            raise
        if temporary != path:
            storage.rename(temporary, path)

    def _blocks(self, advance: Advance) -> Iterator[Tensor]:
        for name, key in self.keys.items():
            for block in self.source.blocks(key):
                advance(block.numel() * block.element_size())
                # Of a first-order table only column 0 is read; the others are there for the kernels.
                yield block[:, :1] if name.startswith(_FIRST_ORDER) else block


@dataclass(frozen=True, kw_only=True)
class LoadedMember:
    """An exported member, ready to give logits."""

    model: SingleMember
    facts: ExportedFacts


def load_member(path: str) -> LoadedMember:
    """Builds an exported member, in evaluation mode on the CPU; needs no process group and no GPU.

    What is read is numbers and JSON, which run no code. An architecture whose kind is a dotted path names a module of
    yours, which is imported from your Python path.

    Args:
        path: A file that `tools/inspect_checkpoint.py export` wrote, local or s3://.

    Raises:
        CheckpointError: the file is none of those, or its tensors are not the architecture's.

    Example::

        loaded = load_member("deep.safetensors")
        logits = loaded.model(dense_BN, {"C1": ids_of_C1, "C2": ids_of_C2})
    """
    if not storage.is_file(path):
        raise CheckpointError(f"{path}: no such file; make one with tools/inspect_checkpoint.py export")
    try:
        with safe_open(storage.local_path(path), framework="pt") as file:
            facts = ExportedFacts.of(file.metadata(), path=path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or damaged ({error}); export the member again"
        ) from error
    member = _build(facts, path=path)
    try:
        member.load_state_dict(_below(_MEMBER, tensors))
        tables, first_order = _below(_TABLES, tensors), _below(_FIRST_ORDER, tensors)
        model = SingleMember(
            member=member,
            tables={
                name: _table(tables[name], rows, facts.dim) for name, rows in facts.table_rows.items() if facts.dim
            },
            first_order={name: _table(first_order[name], rows, 1) for name, rows in facts.table_rows.items()}
            if member.first_order
            else None,
        )
    except (RuntimeError, KeyError, ValueError) as error:
        told = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: its tensors are not those of {facts.architecture} ({told}); export the member again"
        ) from error
    return LoadedMember(model=model.eval(), facts=facts)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _table(weights: Tensor, rows: int, columns: int) -> Tensor:
    if weights.shape != (rows, columns):
        raise ValueError(f"a table of {list(weights.shape)}, not {[rows, columns]}")
    return weights


def _build(facts: ExportedFacts, *, path: str) -> Any:
    """The member, its weights as drawn."""
    arch = read_arch(facts.architecture, source=path, resolve_arch=members.config_class, arch_kinds=members.kinds())
    fields = MemberFields(
        numeric=facts.numeric,
        num_dense=len(facts.dense_features),
        features=tuple(facts.table_rows),
        embedded=arch.reads_embeddings,
    )
    return fields.build(arch, dim=facts.dim)
