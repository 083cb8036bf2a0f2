"""Member architectures that exist for the tests of the configuration alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.section import ArchConfig, Section, positive

KINDS = ("cross", "mlp", "nested")


@dataclass(frozen=True, kw_only=True)
class MlpConfig(ArchConfig):
    """A plain network."""

    hidden: tuple[int, ...] = (64,)
    """Widths."""

    dropout: float = 0.0
    """Probability."""

    def __post_init__(self) -> None:
        self.refuse("hidden: give at least one width" if not self.hidden else None)


@dataclass(frozen=True, kw_only=True)
class CrossConfig(ArchConfig):
    """Crossed features."""

    num_layers: int = 3
    """Layers."""

    low_rank_dim: int | None = None
    """Rank."""

    structure: Literal["stacked", "parallel"] = "parallel"
    """Where the network reads."""

    def __post_init__(self) -> None:
        self.refuse(positive("num_layers", self.num_layers), positive("low_rank_dim", self.low_rank_dim))


@dataclass(frozen=True, kw_only=True)
class Tower(Section):
    """A part with keys of its own."""

    widths: tuple[float, ...] = ()
    """Widths."""

    label: str | None = None
    """A label."""


@dataclass(frozen=True, kw_only=True)
class NestedConfig(ArchConfig):
    """Tables within tables."""

    tower: Tower = field(default_factory=Tower)
    """The tower."""

    towers: dict[str, Tower] = field(default_factory=dict)
    """More towers."""

    rates: dict[str, float] = field(default_factory=dict)
    """A rate a name."""

    pair: tuple[int, float] = (1, 0.5)
    """Two numbers."""

    exact: bool = True
    """A switch."""

    width: int | str = 8
    """A number or a word."""


CLASSES: dict[str, type[ArchConfig]] = {"cross": CrossConfig, "mlp": MlpConfig, "nested": NestedConfig}


def resolve(kind: str) -> type[ArchConfig]:
    """The class of a kind; as for real members, `KeyError` or `ImportError` where there is none."""
    if "." in kind:
        raise ImportError(f"No module named {kind.split('.')[0]!r}")
    return CLASSES[kind]
