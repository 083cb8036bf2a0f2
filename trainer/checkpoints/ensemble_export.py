"""EnsembleExport: all members of a checkpoint as files, with the merge rule and a manifest, for use without sharding.

The folder:

    MEMBER.safetensors   one for each member, with its tables: see trainer/checkpoints/export.py
    MEMBER.pt2           where asked for, the same as a torch.export program: see trainer/checkpoints/member_program.py
    merge.toml           how the members' logits become one probability
    ensemble.json        what there is; written last, so a folder without it was not finished

A table that several members read is in the file of each. The members compute in float32; the predictions of a run with
dense.precision = bf16 differ from them by that rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from configs.errors import CheckpointError
from trainer import storage
from trainer.checkpoints.export import ExportedFacts, MemberExport, load_member
from trainer.checkpoints.manifest import proof_of
from trainer.checkpoints.member_program import write_program
from trainer.checkpoints.stored_checkpoint import StoredCheckpoint
from trainer.checkpoints.verification import Advance
from trainer.merge_files import MergeFile, columns_of, write_merge

FORMAT = "chorus-ensemble"
FORMAT_VERSION = 1
ENSEMBLE_NAME = "ensemble.json"
MERGE_NAME = "merge.toml"


@dataclass(frozen=True, kw_only=True)
class ExportedInputs:
    """What one member reads of a row."""

    numeric: str  # how it takes numeric features: dense, scaled, ids or none
    dense_features: tuple[str, ...]
    id_features: tuple[str, ...]

    @staticmethod
    def of(facts: ExportedFacts) -> ExportedInputs:
        """Of an exported member."""
        return ExportedInputs(
            numeric=facts.numeric, dense_features=facts.dense_features, id_features=tuple(facts.table_rows)
        )


@dataclass(frozen=True, kw_only=True)
class EnsembleFacts:
    """The manifest of an exported ensemble."""

    members: Mapping[str, ExportedInputs]  # in the order of the logits
    dense_features: tuple[str, ...]  # of the data, in the order of the columns
    table_rows: Mapping[str, int]  # id feature of the data -> rows of its tables; ids are below that
    dictionary: str  # hash of the dictionary that gave the ids
    step: int  # of the checkpoint
    files: Mapping[str, Mapping[str, Any]]  # name -> {num_bytes, sha256}

    def write(self, folder: str) -> None:
        """Writes ensemble.json: the folder is whole from then on."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        storage.write_json(storage.join(folder, ENSEMBLE_NAME), body)

    @staticmethod
    def read(folder: str) -> EnsembleFacts:
        """Of an exported folder.

        Raises:
            CheckpointError: the folder is not there, not whole, or not ours.
        """
        path = storage.join(folder, ENSEMBLE_NAME)
        if not storage.is_file(path):
            raise CheckpointError(
                f"{folder}: no {ENSEMBLE_NAME} in it, so it is no whole export; make one with"
                " tools/inspect_checkpoint.py export --all"
            )
        try:
            body = storage.read_json(path)
            if body.pop("format") != FORMAT or body.pop("format_version") != FORMAT_VERSION:
                raise ValueError(f"another format, or format version; this program reads {FORMAT} {FORMAT_VERSION}")
            return EnsembleFacts(
                **body
                | {
                    "members": {
                        name: ExportedInputs(
                            numeric=inputs["numeric"],
                            dense_features=tuple(inputs["dense_features"]),
                            id_features=tuple(inputs["id_features"]),
                        )
                        for name, inputs in body["members"].items()
                    },
                    "dense_features": tuple(body["dense_features"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: not the manifest of an exported ensemble ({error}); export it again"
            ) from error


def member_file(member: str) -> str:
    """The name of a member's file."""
    return f"{member}.safetensors"


def program_file(member: str) -> str:
    """The name of a member's program."""
    return f"{member}.pt2"


@dataclass(frozen=True, kw_only=True)
class EnsembleExport:
    """All members of a checkpoint, ready to be written."""

    source: StoredCheckpoint
    members: tuple[MemberExport, ...]
    merge: MergeFile

    @staticmethod
    def of(source: StoredCheckpoint, *, merge: MergeFile) -> EnsembleExport:
        """The members in the checkpoint's order, merged by this rule.

        Raises:
            ConfigError: the rule names a member that the checkpoint does not have.
        """
        names = list(source.manifest.model["members"])
        columns_of(merge.rule, names, source=source.folder)
        members = tuple(MemberExport.of(source, member=name) for name in names)
        return EnsembleExport(source=source, members=members, merge=merge)

    @property
    def num_bytes(self) -> int:
        """Bytes to read."""
        return sum(member.num_bytes for member in self.members)

    def write(self, folder: str, *, advance: Advance, programs: bool = False) -> None:
        """Writes the folder, the manifest last.

        Args:
            folder: A new folder.
            advance: Told of the bytes that were read.
            programs: Whether each member is also written as a torch.export program.

        Raises:
            CheckpointError: the folder holds something, the checkpoint cannot be read, or torch.export does not take
                a member.
        """
        if storage.names(folder) or storage.is_file(folder):
            raise CheckpointError(f"--output: {folder!r} is there already; name a new folder")
        storage.make_folder(folder)
        try:
            self._write(folder, advance=advance, programs=programs)
        except BaseException:  # so that the same command can start again
            with contextlib.suppress(OSError):
                storage.remove_tree(folder)
            raise

    def _write(self, folder: str, *, advance: Advance, programs: bool) -> None:
        names = []
        for member in self.members:
            name = member.facts.member
            names.append(member_file(name))
            member.write(storage.join(folder, names[-1]), advance=advance)
            if programs:
                names.append(program_file(name))
                loaded = load_member(storage.join(folder, member_file(name)))
                write_program(loaded, storage.join(folder, names[-1]))
        write_merge(storage.join(folder, MERGE_NAME), self.merge.rule, self.merge.fitted_on)
        names.append(MERGE_NAME)
        model = self.source.manifest.model
        EnsembleFacts(
            members={member.facts.member: ExportedInputs.of(member.facts) for member in self.members},
            dense_features=tuple(model["dense_features"]),
            table_rows=model["table_rows"],
            dictionary=model["dictionary"],
            step=self.source.manifest.step,
            files={name: proof_of(storage.join(folder, name)) for name in names},
        ).write(folder)
