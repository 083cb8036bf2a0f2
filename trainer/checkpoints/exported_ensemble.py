"""ExportedEnsemble: the members of an exported folder in one process, without ranks; logits and the merged probability.

Shapes: B rows, N dense features, F id features, T ids of all bags of a feature, M members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from configs.errors import CheckpointError
from modules.merge import MergeRule
from modules.single_member import Bags
from trainer import storage
from trainer.checkpoints.ensemble_export import MERGE_NAME, EnsembleFacts, member_file
from trainer.checkpoints.export import LoadedMember, load_member
from trainer.checkpoints.manifest import proof_of
from trainer.data.reading.batch import Rows
from trainer.merge_files import columns_of, read_merge


@dataclass(frozen=True, kw_only=True)
class ExportedEnsemble:
    """Members and their merge rule, in evaluation on the CPU.

    Example::

        ensemble = load_ensemble("exported")
        probabilities_B = ensemble.merged(dense_BN, {"C1": ids_B, "genres": (ids_T, offsets_B1)})
    """

    facts: EnsembleFacts
    members: Mapping[str, LoadedMember]
    rule: MergeRule

    @property
    def member_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(self.members)

    @torch.inference_mode()
    def logits(self, dense_BN: Tensor, bags: Mapping[str, Bags]) -> Tensor:
        """Logits [B, M], float32.

        Args:
            dense_BN: All numeric features of the data, float32 [B, N], in the order of `facts.dense_features`.
            bags: Id feature -> its ids, as `SingleMember` takes them; with those that no member reads or without.

        Raises:
            CheckpointError: a feature is missing, or the number of columns is another.
            IndexError: an id has no row in its table.
        """
        if dense_BN.shape[1] != len(self.facts.dense_features):
            raise CheckpointError(
                f"{dense_BN.shape[1]} numeric columns for an ensemble that was trained on"
                f" {len(self.facts.dense_features)}: {', '.join(self.facts.dense_features)}"
            )
        columns = []
        for name, inputs in self.facts.members.items():
            missing = [feature for feature in inputs.id_features if feature not in bags]
            if missing:
                raise CheckpointError(f"id feature {missing[0]!r} is missing, which member {name} reads")
            dense = dense_BN if inputs.dense_features else dense_BN[:, :0]
            columns.append(self.members[name].model(dense, bags).float())
        return torch.stack(columns, dim=1)

    def merged(self, dense_BN: Tensor, bags: Mapping[str, Bags]) -> Tensor:
        """Merged probabilities [B], float64; arguments as of `logits`."""
        return self.merge(self.logits(dense_BN, bags))

    def merge(self, logits_BM: Tensor) -> Tensor:
        """Merged probabilities [B], float64, of this ensemble's logits [B, M]."""
        columns = columns_of(self.rule, self.member_names, source="the exported ensemble")
        return self.rule.probabilities(logits_BM[:, columns])


def load_ensemble(folder: str) -> ExportedEnsemble:
    """Loads what `tools/inspect_checkpoint.py export --all` wrote; every file is compared with its hash first.

    What is read is numbers, JSON and TOML, which run no code; the .pt2 programs are left alone.

    Raises:
        CheckpointError: the folder is not whole, or a file is missing or changed.
    """
    facts = EnsembleFacts.read(folder)
    for name in (*map(member_file, facts.members), MERGE_NAME):
        path = storage.join(folder, name)
        if not storage.is_file(path) or proof_of(path) != facts.files.get(name):
            raise CheckpointError(f"{path} is missing or not as it was written; export the ensemble again")
    return ExportedEnsemble(
        facts=facts,
        members={name: load_member(storage.join(folder, member_file(name))) for name in facts.members},
        rule=read_merge(storage.join(folder, MERGE_NAME)),
    )


def bags_of(rows: Rows, *, features: Sequence[str]) -> dict[str, Bags]:
    """The bags of prepared rows, as `logits` takes them.

    Args:
        rows: As a source gives them.
        features: The source's id features, in the order of the bags.
    """
    num_rows = len(rows)
    lengths_FB = rows.lengths if rows.lengths.ndim == 2 else np.repeat(rows.lengths[:, None], num_rows, axis=1)
    ends = np.cumsum(lengths_FB.sum(axis=1, dtype=np.int64))
    ids_of = np.split(rows.values, ends[:-1])
    offsets = np.zeros((len(lengths_FB), num_rows + 1), dtype=np.int64)
    np.cumsum(lengths_FB, axis=1, out=offsets[:, 1:])
    return {
        name: (torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(offsets[index]))
        for index, (name, ids) in enumerate(zip(features, ids_of, strict=True))
    }
