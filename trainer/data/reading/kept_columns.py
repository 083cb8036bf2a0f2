"""Columns that may pass through into predictions: those with one value a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.errors import ConfigError
from trainer.data.manifest import DataManifest
from trainer.predictions.columns import is_reserved

_SHOWN_NAMES = 60


@dataclass(frozen=True)
class ColumnPlace:
    """Where a column lies in a part."""

    role: str  # of the file
    column: int


def keepable_columns(manifest: DataManifest) -> dict[str, ColumnPlace]:
    """Name -> place of the kept columns, and of the features that have one value a row."""
    single = [feature for feature in manifest.features if feature.kind != "bag"]
    return {feature.name: ColumnPlace(feature.file, feature.column) for feature in single}


def check_names(names: Sequence[str], *, there: Mapping[str, object] | Sequence[str], bags: Sequence[str] = ()) -> None:
    """Refuses columns that cannot pass through.

    Args:
        names: Asked for, in score.keep.
        there: Those that can.
        bags: Features that cannot, as a row has any number of ids.

    Raises:
        ConfigError: names the first, and those there are.
    """
    known = list(there)
    shown = ", ".join(known[:_SHOWN_NAMES]) + ", ..." * (len(known) > _SHOWN_NAMES)
    for name in names:
        if name in bags:
            raise ConfigError(
                f"score.keep: {name!r} has several ids a row, which no column of predictions holds; choose from {shown}"
            )
        if name not in there:
            raise ConfigError(
                f"score.keep: there is no column {name!r}; choose from {shown}, or prepare the rows with a schema that"
                f" has [keep.{name}]"
            )
        if is_reserved(name):
            raise ConfigError(
                f"score.keep: predictions have a column {name!r} already; rename it in the schema the rows are prepared"
                " with, or leave it out"
            )
