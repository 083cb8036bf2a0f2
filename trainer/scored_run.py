"""ScoredRun: a checkpoint that is scored, what its columns are called after, and the run it is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import ConfigError
from configs.schema import NAME_PATTERN, RunConfig


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """One checkpoint of a scoring job."""

    label: str  # "" where there is one checkpoint without a label
    folder: str
    config: RunConfig  # its own run.toml, with the command line's keys

    @property
    def called(self) -> str:
        """For messages."""
        return self.label or self.folder

    @property
    def members(self) -> tuple[str, ...]:
        """Its members, as their columns are called, in order."""
        before = f"{self.label}_" if self.label else ""
        return tuple(f"{before}{name}" for name, _ in self.config.expanded_members())


def labels_and_folders(words: Sequence[str]) -> list[tuple[str, str]]:
    """What --checkpoint was given, DIR or LABEL=DIR, as labels and folders.

    A folder whose own name looks like LABEL=DIR is written with ./ in front.

    Raises:
        ConfigError: none is given, or one of several has no label, or another one's.
    """
    if not words:
        raise ConfigError("--checkpoint: not given; name a checkpoint folder, as runs/NAME/TIME/checkpoints/step_...")
    pairs = []
    for word in words:
        label, sign, folder = word.partition("=")
        is_labelled = bool(sign and folder and NAME_PATTERN.fullmatch(label))
        pairs.append((label, folder) if is_labelled else ("", word))
    if len(pairs) == 1:
        return pairs
    bare = [folder for label, folder in pairs if not label]
    if bare:
        raise ConfigError(
            f"--checkpoint: {bare[0]!r} is one of {len(pairs)} and needs a label of a-z, 0-9 and _ for its columns;"
            f" write --checkpoint a={bare[0]}"
        )
    doubled = [label for label, count in Counter(label for label, _ in pairs).items() if count > 1]
    if doubled:
        raise ConfigError(f"--checkpoint: {doubled[0]!r} labels two checkpoints; give each a label of its own")
    return pairs


def check_members_differ(runs: Sequence[ScoredRun]) -> None:
    """Refuses labels under which two members would share a column.

    Raises:
        ConfigError: names both.
    """
    owners: dict[str, str] = {}
    for run in runs:
        for member in run.members:
            if member in owners:
                raise ConfigError(
                    f"--checkpoint: {owners[member]} and {run.called} would both have a member {member}; give them"
                    " other labels"
                )
            owners[member] = run.called
