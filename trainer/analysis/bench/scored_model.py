"""ScoredModel: an ensemble in this process whose scoring is measured, with all of its members, with some, or with none.

Shapes: B rows, M members.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from configs.loader import read_run
from configs.schema import RunConfig
from modules import members
from modules.contracts import MemberInput
from modules.ensemble import MemberBank
from modules.merge import MergeRule
from sharding.shards import table_shards
from trainer import storage
from trainer.assembly import shard_task
from trainer.built_task import build_task
from trainer.checkpoints.loading import Wanted, load
from trainer.checkpoints.manifest import RUN_NAME, read_manifest
from trainer.data.reading.batch import Batch, make_batch
from trainer.data.reading.opening import open_scoring_source
from trainer.predictions.range_files import RECORDS_FOLDER, RangeFiles, RangeFormat
from trainer.predictions.range_writer import RangeWriter
from trainer.predictions.row_ranges import cut_ranges
from trainer.quantised_tables import quantised_model
from trainer.runtime import Runtime
from trainer.scoring import ScoringJob, ScoringWork
from trainer.task_plan import TaskWork

Clock = Literal["wall", "cpu"]


class ScoredModel:
    """A checkpoint's ensemble and the rows to score, loaded as a scoring job loads them.

    Args:
        checkpoint: Its folder.
        words: Keys that win over its run's, as `--dense.precision=bf16`.
        scratch: A folder for predictions, which are removed again.
        runtime: This process, alone.
        clock: wall, or cpu: seconds of all of this process's threads, which do not count while others hold the cores.
    """

    def __init__(
        self, checkpoint: str, *, words: Sequence[str], scratch: str, runtime: Runtime, clock: Clock = "wall"
    ) -> None:
        self._now = time.perf_counter if clock == "wall" else time.process_time
        self.config = checkpoint_config(checkpoint, words)
        self._runtime, self._scratch = runtime, scratch
        self.source = open_scoring_source(self.config.data, parts=self.config.score.parts, ranks=runtime)
        built = build_task(self.config, features=self.source.features)
        self._bank: MemberBank = built.task.ensemble.bank
        self._members: Mapping[str, nn.Module] = dict(built.task.ensemble.bank.members.items())
        manifest = read_manifest(checkpoint)
        tables = self.config.score.tables
        if tables == "sharded":
            sharded = shard_task(built, work=TaskWork(rows_per_rank=self.config.score.batch_size), runtime=runtime)
            self.model: nn.Module = sharded.model
            load(manifest, Wanted.weights(sharded.model.state_dict()), ranks=runtime.ranks, say=runtime.say)
        else:
            self.model = quantised_model(built, manifest, dtype=tables, device=runtime.device, say=runtime.say)
        self.model.eval()

    @property
    def member_names(self) -> tuple[str, ...]:
        """All of its members."""
        return tuple(self._members)

    @property
    def table_bytes(self) -> int:
        """What this rank's tables take."""
        of_tables = table_shards(self.model.state_dict()).values()
        return sum(shard.tensor.numel() * shard.tensor.element_size() for table in of_tables for shard in table.local)

    @contextlib.contextmanager
    def only(self, number: int) -> Iterator[None]:
        """A block in which the ensemble has but its first members; with none, one that computes nothing."""
        some: dict[str, nn.Module] = {name: self._members[name] for name in self.member_names[:number]}
        with self._having(some or {self.member_names[0]: _Idle(keep=None)}):
            yield

    @contextlib.contextmanager
    def _having(self, some: Mapping[str, nn.Module]) -> Iterator[None]:
        self._bank.members = nn.ModuleDict(some)
        try:
            yield
        finally:
            self._bank.members = nn.ModuleDict(self._members)

    def pass_seconds(self) -> float:
        """Of scoring every row and writing the files: what a job does between its start-up and its figures."""
        score, names = self.config.score, tuple(self._bank.members)
        work = ScoringWork(
            source=self.source,
            ranges=cut_ranges(self.source.parts, range_rows=score.range_rows),
            batch_size=score.batch_size,
            prefetch_batches=self.config.data.prefetch_batches,
        )
        job = ScoringJob(models=[self.model], work=work, runtime=self._runtime)
        form = RangeFormat(members=names, merge=MergeRule.fixed("mean_logit", members=names), dtype=score.dtype)
        storage.make_folder(storage.join(self._scratch, RECORDS_FOLDER))
        try:
            started = self._now()
            with RangeWriter(RangeFiles(self._scratch, form=form).write) as writer:
                job.run(writer.put)
            return self._now() - started
        finally:
            shutil.rmtree(self._scratch)

    def batches(self, number: int) -> list[Batch]:
        """The first batches, in memory, on the model's device."""
        size, keys = self.config.score.batch_size, list(self.source.features.table_rows)
        made = []
        for first in range(0, min(number * size, self.source.num_rows - size + 1), size):
            batch = make_batch(self.source.read(range(first, first + size)), keys=keys, num_rows=size, loss_weight=1.0)
            made.append(batch.to(self._runtime.device))
        return made

    @torch.no_grad()
    def forward_seconds(self, batches: Sequence[Batch]) -> float:
        """Of the forward pass over all of the source's rows, as often over these batches as that takes."""
        started = self._now()
        for step in range(self.num_steps):
            self.model(batches[step % len(batches)])[1].logits_BM.cpu()
        return self._now() - started

    def inputs(self, batches: Sequence[Batch]) -> list[MemberInput]:
        """What the first member sees of each batch: dense features and embeddings, in memory."""
        seen: list[MemberInput] = []
        with self._having({self.member_names[0]: _Idle(keep=seen)}), torch.no_grad():
            for batch in batches:
                self.model(batch)
        return seen

    @torch.no_grad()
    def dense_seconds(self, inputs: Sequence[MemberInput]) -> float:
        """Of the first member alone over as many rows as the source has, its embeddings in memory."""
        member, device = self._members[self.member_names[0]], self._runtime.device.type
        coarse = self.config.dense.precision == "bf16"
        started = self._now()
        for step in range(self.num_steps):
            with torch.autocast(device, torch.bfloat16, enabled=coarse):
                member(inputs[step % len(inputs)]).float().cpu()
        return self._now() - started

    @property
    def num_steps(self) -> int:
        """Batches of a pass; a part's last one may be short."""
        size, rows = self.config.score.batch_size, self.config.score.range_rows
        return sum(-(-cut.num_rows // size) for cut in cut_ranges(self.source.parts, range_rows=rows))


class _Idle(nn.Module):
    """In a member's place: it computes nothing, and keeps its inputs where asked to."""

    first_order = False

    def __init__(self, *, keep: list[MemberInput] | None) -> None:
        super().__init__()
        self._keep = keep

    def forward(self, inputs: MemberInput) -> Tensor:
        if self._keep is not None:
            self._keep.append(inputs)
        return inputs.dense_BN.new_zeros(len(inputs.dense_BN))


def checkpoint_config(checkpoint: str, words: Sequence[str]) -> RunConfig:
    """The run of a checkpoint with keys that win."""
    path = storage.join(checkpoint, RUN_NAME)
    return read_run(
        storage.read_text(path),
        source=path,
        overrides=words,
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )
