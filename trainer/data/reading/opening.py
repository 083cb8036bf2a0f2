"""The sources that a run names, opened and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError, DataError
from configs.schema import Data, Synthetic
from trainer.data.manifest import DataManifest
from trainer.data.reading.scan import Ranks, check_values
from trainer.data.reading.source import PreparedSource, RowSource
from trainer.data.synthetic.stream import SyntheticSource
from trainer.data.synthetic.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class TrainingSources:
    """What a training run reads."""

    train: RowSource
    valid: RowSource | None


class Alone:
    """One process that shares the scan with nobody and says nothing."""

    rank = 0
    world_size = 1

    def together(self, do: Callable[[], Any]) -> Any:
        """Runs it."""
        return do()

    def from_main(self, make: Callable[[], Any]) -> Any:
        """Runs it."""
        return make()

    def say(self, text: str) -> None:
        """Keeps quiet."""


def open_sources(data: Data, *, ranks: Ranks | None = None) -> TrainingSources:
    """The sources that `[data]` names, their values checked. With `ranks`, all of them must call this.

    Raises:
        ConfigError: the parts are named without a folder, or a folder without parts.
        DataError: something is missing or damaged, or there is no row to train on.
    """
    if data.root and not data.train:
        raise ConfigError("data.train: empty; name at least one part of data.root to train on")
    if not data.root and (data.train or data.valid):
        raise ConfigError("data.root: empty, but data.train or data.valid name parts; give the prepared folder")
    if not data.root:
        return TrainingSources(
            train=_stream(data.synthetic, held_out=False), valid=_stream(data.synthetic, held_out=True)
        )
    train = PreparedSource(root=data.root, parts=data.train)
    valid = PreparedSource(root=data.root, parts=data.valid) if data.valid else None
    for what, source in (("train", train), ("valid", valid)):
        if source is None:
            continue
        if source.num_rows == 0:
            raise DataError(f"data.{what}: its parts hold no rows; name parts that do")
        unlabelled = [part.name for part in source.parts if not part.has_labels]
        if unlabelled:
            raise DataError(
                f"data.{what}: part {unlabelled[0]!r} has no labels; it can be scored with score.parts, no more"
            )
    check_values([source for source in (train, valid) if source is not None], ranks=ranks or Alone())
    return TrainingSources(train=train, valid=valid)


def open_scoring_source(data: Data, *, parts: Sequence[str], ranks: Ranks | None = None) -> RowSource:
    """The rows to score, checked: the named parts of data.root, or all; without a root, the stream's held-out rows.

    With `ranks`, all of them must call this.

    Raises:
        DataError: something is missing or damaged, or there is no row.
    """
    if not data.root:
        if parts:
            raise ConfigError(f"score.parts: the synthetic stream has no part {parts[0]!r}; give data.root or no parts")
        return _stream(data.synthetic, held_out=True)
    chosen = parts or [part.name for part in DataManifest.read(data.root).parts]
    source = PreparedSource(root=data.root, parts=chosen)
    if source.num_rows == 0:
        raise DataError(f"{data.root}: its parts {', '.join(chosen)} hold no rows; name parts in score.parts that do")
    check_values([source], ranks=ranks or Alone())
    return source


def _stream(stream: Synthetic, *, held_out: bool) -> SyntheticSource:
    return SyntheticSource(
        teacher=Teacher(seed=stream.seed, max_table_rows=stream.max_table_rows),
        name="held_out" if held_out else "stream",
        first_row=stream.train_rows if held_out else 0,
        num_rows=stream.valid_rows if held_out else stream.train_rows,
    )
