"""ScoringPlan: what a scoring job reads and with which checkpoints, how it is cut, and what decides its bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import CheckpointError, ConfigError
from configs.schema import Data, RunConfig
from modules.merge import MergeRule
from trainer import storage
from trainer.checkpoints.manifest import MANIFEST_NAME, CheckpointManifest, read_manifest
from trainer.checkpoints.matching import check_same_features
from trainer.data.manifest import DataManifest
from trainer.data.preparing.scoring_input import prepare_scoring_input
from trainer.data.reading.opening import open_scoring_source
from trainer.data.reading.source import RowSource
from trainer.merge_files import read_merge
from trainer.predictions.columns import is_reserved
from trainer.predictions.completeness import WholePart
from trainer.predictions.manifest import PredictionFile, PredictionManifest, ScoredCheckpoint
from trainer.predictions.range_files import RangeFormat
from trainer.predictions.row_ranges import RowRange, cut_ranges
from trainer.runtime import Runtime
from trainer.scored_run import ScoredRun


@dataclass(frozen=True, kw_only=True)
class ScoringPlan:
    """A scoring job, before any weights are loaded."""

    runs: tuple[ScoredRun, ...]
    checkpoints: tuple[CheckpointManifest, ...]
    data: Data  # with the prepared folder of score.input, where there is one
    source: RowSource
    form: RangeFormat
    ranges: tuple[RowRange, ...]
    parts: Mapping[str, WholePart]
    decides: Mapping[str, Any]  # all that decides the bytes at one world size, as JSON has it

    @property
    def config(self) -> RunConfig:
        """The run of the first checkpoint, whose data, score, merge and run sections are the job's."""
        return self.runs[0].config

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Names of the parts without labels, for which there are no figures."""
        return tuple(part.name for part in self.source.parts if not part.has_labels)

    def manifest(self, files: Sequence[PredictionFile]) -> PredictionManifest:
        """The manifest of the predictions, without figures."""
        return PredictionManifest(
            members=self.form.members,
            parts={name: part.num_rows for name, part in self.parts.items()},
            files=tuple(files),
            kept=self.form.keep,
            merge=self.form.merge.as_json(),
            checkpoints=tuple(
                ScoredCheckpoint(label=run.label, folder=run.folder, step=manifest.step)
                for run, manifest in zip(self.runs, self.checkpoints, strict=True)
            ),
            data={
                "root": "" if self.config.score.input else self.data.root,  # what is prepared for the job goes with it
                "dictionary": self.source.features.dictionary,
                "input": list(self.config.score.input),
            },
            settings=self.decides["settings"],
        )


def plan_scoring(runs: Sequence[ScoredRun], *, output: str, runtime: Runtime) -> ScoringPlan:
    """Opens the rows and the checkpoints' manifests, and cuts the work. All ranks must call this.

    Raises:
        ChorusError: data, checkpoints, kept columns or the merge do not fit each other.
    """
    config = runs[0].config
    checkpoints: list[CheckpointManifest] = runtime.from_main(lambda: [read_manifest(run.folder) for run in runs])
    _check_same_ids(runs, checkpoints)
    data = config.data
    if config.score.input:
        root = prepare_scoring_input(config, folder=output, runtime=runtime)
        data = dataclasses.replace(data, root=root, train=(), valid=())
    source = open_scoring_source(data, parts=config.score.parts, ranks=runtime)
    for manifest in checkpoints:
        check_same_features(manifest, source.features, root=data.root)
    form = _form(runs, source=source, runtime=runtime)
    contents: dict[str, Any] = runtime.from_main(lambda: _part_contents(data, source))
    decides = {
        "checkpoints": runtime.from_main(lambda: _identities(runs, checkpoints)),
        "data": {"dictionary": source.features.dictionary, "parts": contents},
        "settings": {
            "device": runtime.device.type,
            "batch_size": config.score.batch_size,
            "range_rows": config.score.range_rows,
            "dtype": form.dtype,
            "probabilities": form.probabilities,
            "tables": config.score.tables,
        },
        "keep": list(form.keep),
        "members": list(form.members),
        "merge": form.merge.as_json(),
    }
    return ScoringPlan(
        runs=tuple(runs),
        checkpoints=tuple(checkpoints),
        data=data,
        source=source,
        form=form,
        ranges=cut_ranges(source.parts, range_rows=config.score.range_rows),
        parts={
            part.name: WholePart(num_rows=part.num_rows, label_sum=contents[part.name].get("label_sum"))
            for part in source.parts
        },
        decides=decides,
    )


def _check_same_ids(runs: Sequence[ScoredRun], checkpoints: Sequence[CheckpointManifest]) -> None:
    """Refuses checkpoints to which the same row means different things."""
    first = checkpoints[0].model
    for run, manifest in zip(runs[1:], checkpoints[1:], strict=True):
        other = manifest.model
        both = f"--checkpoint: {runs[0].called} and {run.called}"
        apart = "; score them in jobs of their own"
        if first["dictionary"] != other["dictionary"]:
            raise CheckpointError(
                f"{both} were trained on the ids of different dictionaries, {first['dictionary']!r} and"
                f" {other['dictionary']!r}{apart}"
            )
        for what, called in (("table_rows", "rows of table"), ("numeric_ids", "the ids of")):
            ours, theirs = first.get(what, {}), other.get(what, {})
            differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
            if differing:
                name = differing[0]
                raise CheckpointError(
                    f"{both} differ in {called} {name}: {ours.get(name)} and {theirs.get(name)}{apart}"
                )
        if list(first["dense_features"]) != list(other["dense_features"]):
            raise CheckpointError(
                f"{both} read different dense features, {', '.join(first['dense_features'])} and"
                f" {', '.join(other['dense_features'])}{apart}"
            )


def _form(runs: Sequence[ScoredRun], *, source: RowSource, runtime: Runtime) -> RangeFormat:
    config = runs[0].config
    members = tuple(member for run in runs for member in run.members)
    reserved = [name for name in config.score.keep if is_reserved(name)]
    if reserved:
        raise ConfigError(f"score.keep: {reserved[0]!r} is a column of the predictions' own; rename it in the data")
    source.check_keepable(config.score.keep)
    return RangeFormat(
        members=members,
        merge=_merge(config, members=members, runtime=runtime),
        dtype=config.score.dtype,
        probabilities=config.score.probabilities,
        keep=config.score.keep,
    )


def _merge(config: RunConfig, *, members: Sequence[str], runtime: Runtime) -> MergeRule:
    path = config.score.merge_file
    if not path:
        return MergeRule.fixed(config.merge.rule, members=members)
    rule: MergeRule = runtime.from_main(lambda: read_merge(path))
    unknown = [name for name in rule.members if name not in members]
    if unknown:
        raise ConfigError(
            f"score.merge_file: {path!r} merges {unknown[0]!r}, which is not scored; the members here are"
            f" {', '.join(members)}"
        )
    return rule


def _identities(runs: Sequence[ScoredRun], checkpoints: Sequence[CheckpointManifest]) -> dict[str, Any]:
    """What each checkpoint's logits follow from; its manifest has the hashes of all its files."""
    return {
        run.label or "it": {
            "step": manifest.step,
            "manifest_sha256": storage.sha256(storage.join(manifest.folder, MANIFEST_NAME)),
            "precision": run.config.dense.precision,
            "batch_copies": run.config.dense.batch_copies,
        }
        for run, manifest in zip(runs, checkpoints, strict=True)
    }


def _part_contents(data: Data, source: RowSource) -> dict[str, Any]:
    """What the rows of each part follow from; where the files lie does not matter."""
    if not data.root:
        stream = dataclasses.asdict(data.synthetic)
        return {part.name: {"num_rows": part.num_rows, "stream": stream} for part in source.parts}
    manifest = DataManifest.read(data.root)
    return {
        part.name: {
            "num_rows": part.num_rows,
            "label_sum": part.label_sum,
            "files": {
                role: {"sha256": file.sha256, "member": file.member, "first_row": file.first_row}
                for role, file in part.files.items()
            },
        }
        for part in (manifest.part(one.name) for one in source.parts)
    }
