"""ExportedEnsemble: the members of an exported folder in one process, without ranks; logits and the merged probability.

Shapes: B rows, N dense features, F id features, T ids of all bags of a feature, M members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from configs.errors import CheckpointError, DataError
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
            DataError: a feature is missing, of another type or length, holds a NaN or an infinity, or an id that has
                no row in its table; names the feature and the row.
        """
        _check_dense(
            dense_BN,
            names=self.facts.dense_features,
            read=any(inputs.dense_features for inputs in self.facts.members.values()),
        )
        self._check_bags(bags, num_rows=len(dense_BN))
        columns = []
        for name, inputs in self.facts.members.items():
            dense = dense_BN if inputs.dense_features else dense_BN[:, :0]
            columns.append(self.members[name].model(dense, bags).float())
        return torch.stack(columns, dim=1)

    def _check_bags(self, bags: Mapping[str, Bags], *, num_rows: int) -> None:
        checked = set()
        for name, member in self.members.items():
            for feature, num_ids in member.facts.table_rows.items():
                if feature not in bags:
                    raise DataError(f"id feature {feature!r} is missing, which member {name} reads")
                if feature not in checked:  # its tables have the same rows in all members
                    _check_bag(feature, bags[feature], num_rows=num_rows, num_ids=num_ids)
                    checked.add(feature)

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


def _check_dense(dense_BN: Tensor, *, names: Sequence[str], read: bool) -> None:
    if not isinstance(dense_BN, Tensor) or dense_BN.dtype != torch.float32 or dense_BN.ndim != 2:
        raise DataError(f"dense features: {_described(dense_BN)}; give a float32 tensor, a row for each example")
    if dense_BN.shape[1] != len(names):
        raise DataError(
            f"{dense_BN.shape[1]} numeric columns for an ensemble that was trained on {len(names)}: {', '.join(names)}"
        )
    bad = ~torch.isfinite(dense_BN)
    if read and bad.any():
        row, column = bad.nonzero()[0].tolist()
        value = float(dense_BN[row, column])
        raise DataError(f"dense feature {names[column]!r} is {value} in row {row}; give a finite number")


def _check_bag(feature: str, bag: Bags, *, num_rows: int, num_ids: int) -> None:
    """The feature's ids [B], or (ids [T], offsets [B + 1])."""
    called = f"id feature {feature!r}"
    ids, offsets = bag if isinstance(bag, tuple) and len(bag) == 2 else (bag, None)
    for what, numbers in (("ids", ids), ("offsets", offsets)):
        if numbers is not None and not _are_integers(numbers):
            raise DataError(
                f"{called}: its {what} are {_described(numbers)}; give a tensor of integers, of one dimension"
            )
    if offsets is not None:
        _check_offsets(called, offsets.long(), num_rows=num_rows, num_ids=len(ids))
    elif len(ids) != num_rows:
        raise DataError(f"{called}: {len(ids)} ids for {num_rows} rows; give one of each row, or (ids, offsets)")
    wrong = (ids.long() < 0) | (ids.long() >= num_ids)
    if wrong.any():
        place = _first(wrong)
        row = place if offsets is None else int(torch.searchsorted(offsets.long(), place, right=True)) - 1
        raise DataError(
            f"{called}: id {int(ids[place])} in row {row} is not in its table; give ids from 0 to {num_ids - 1}"
        )


def _check_offsets(called: str, offsets: Tensor, *, num_rows: int, num_ids: int) -> None:
    if len(offsets) != num_rows + 1:
        raise DataError(f"{called}: {len(offsets)} offsets for {num_rows} rows; give {num_rows + 1}")
    if offsets[0] != 0 or offsets[-1] != num_ids:
        raise DataError(
            f"{called}: its offsets begin with {int(offsets[0])} and end with {int(offsets[-1])}; they must begin with"
            f" 0 and end with {num_ids}, its number of ids"
        )
    falling = offsets.diff() < 0
    if falling.any():
        raise DataError(
            f"{called}: its offsets fall in row {_first(falling)}; each row's end where the next one's begin"
        )


def _are_integers(found: object) -> bool:
    if not isinstance(found, Tensor) or found.ndim != 1:
        return False
    return not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)


def _described(found: object) -> str:
    return f"{found.dtype} of shape {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _first(where: Tensor) -> int:
    return int(where.nonzero()[0])


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
