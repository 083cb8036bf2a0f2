"""The base of every configuration section: frozen, keyword-only, unknown keys refused."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """Base class of all sections.

    A subclass is a `@dataclass(frozen=True, kw_only=True)` with a docstring literal under each
    field; those literals are `--help` and the key reference.

    Cross-field rules go into `__post_init__` and raise `ValueError`. Its message is one problem a
    line, each `field: what is wrong and what to do`; the loader puts the section's path in front.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def refuse(self, *problems: str | None) -> None:
        """Raises one `ValueError` for all problems that are not None."""
        found = [problem for problem in problems if problem]
        if found:
            raise ValueError("\n".join(found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchConfig(Section):
    """Base class of a member architecture's `Config`; its module's file name is its `kind`."""

    # How it can take numeric features, its published way first: as a dense vector, as one field each (the value times a
    # learned vector), or as discretised ids. Without "dense" it is always built with num_dense = 0.
    numeric: ClassVar[tuple[str, ...]] = ("dense", "scaled", "ids")

    # False: it reads weights per id alone, and its own tables are those.
    reads_embeddings: ClassVar[bool] = True

    @property
    def teaches_heads(self) -> bool:
        """Whether a member of several heads teaches them its prediction, see `modules.contracts.DenseArch`."""
        return False

    kind: str
    """The architecture: a file of modules/members/, or a dotted module path of your own."""

    def build(self, *, num_dense: int, num_features: int, dim: int) -> Any:
        """The member, an `nn.Module`, for that many dense features, fields and columns."""
        raise NotImplementedError(f"{type(self).__name__} must define build()")

    def cost(self, *, num_dense: int, num_features: int, dim: int) -> Any:
        """Its dense parameters and multiply-adds per row, a `modules.cost.Cost`, for the shapes that `build` takes."""
        raise NotImplementedError(f"{type(self).__name__} must define cost()")


def positive(field: str, value: float | None) -> str | None:
    """The problem text when `value` is given and not above zero, else None."""
    if value is None or value > 0:
        return None
    return f"{field}: {value!r} must be above zero"


def positive_each(field: str, values: tuple[int, ...]) -> str | None:
    """The problem text for the first of the values that is not above zero, else None."""
    bad = [value for value in values if value <= 0]
    return f"{field}: {bad[0]!r} must be above zero" if bad else None


def probability(field: str, value: float) -> str | None:
    """The problem text for a value outside [0, 1), else None."""
    return None if 0.0 <= value < 1.0 else f"{field}: {value!r} is not in [0, 1)"


def not_negative(field: str, value: float | None) -> str | None:
    """The problem text when `value` is given and below zero, else None."""
    if value is None or value >= 0:
        return None
    return f"{field}: {value!r} must not be negative"
