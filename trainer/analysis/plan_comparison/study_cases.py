"""Study cases: the ensembles that a capacity study trains, and the configurations they are written as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Use = Literal["held_out", "calibration", "bytes"]

WINDOWS = 5  # that are measured; one more comes first and warms up
_NUM_FEATURES = 26  # of the Criteo layout
_KINDS = ("mlp", "dcn_v2", "deepfm", "dlrm")
_ARCHS = {
    "mlp": '{{ kind = "mlp", hidden = {hidden} }}',
    "dcn_v2": '{{ kind = "dcn_v2", num_layers = 2, low_rank_dim = 16, hidden = {hidden} }}',
    "deepfm": '{{ kind = "deepfm", hidden = {hidden} }}',
    "dlrm": '{{ kind = "dlrm", dense_hidden = [64], top_hidden = {hidden} }}',
}
# Rough, of one core: only how many steps a window has depends on it, and a run whose windows come out short is
# repeated with more.
_SECONDS_PER_ID = 0.06e-6
_SECONDS_PER_ID_COLUMN = 1.5e-9
_SECONDS_PER_FLOP = 1 / 60e9
_SECONDS_PER_TABLE = 50e-6
_SECONDS_PER_MEMBER = 2e-3


@dataclass(frozen=True, kw_only=True)
class Case:
    """One ensemble.

    Attributes:
        name: Of it, in files and figures.
        use: What its runs are for: held out from calibration, calibration alone, or no more than table bytes.
        kinds: Architecture of each member.
        tables: Whether members share tables or have their own.
        dim: Columns of every table.
        batch_size: Rows of a step over all ranks.
        optimizer: The tables' rule.
        hidden: Hidden widths of each member.
        ranks: Numbers of ranks that it is trained on.
    """

    name: str
    use: Use
    kinds: tuple[str, ...]
    tables: Literal["shared", "own"]
    dim: int
    batch_size: int
    optimizer: str
    hidden: tuple[int, ...]
    ranks: tuple[int, ...]

    @property
    def words(self) -> str:
        """In a line, for people."""
        members = ", ".join(self.kinds) if len(self.kinds) < 4 else f"{len(self.kinds)} of {len(set(self.kinds))} kinds"
        return f"{members}; {self.tables} {self.optimizer} dim {self.dim}; {self.batch_size:,} rows"

    def text(self, *, root: str, parts: Sequence[str], window_steps: int) -> str:
        """The configuration as TOML: one window to warm up and WINDOWS to measure, a checkpoint at the end alone."""
        lines = [
            "[data]",
            f"root = {root!r}",
            f"train = {list(parts)!r}",
            "[train]",
            f"batch_size = {self.batch_size}",
            f"until = {{ steps = {window_steps * (1 + WINDOWS)} }}",
            f"log_every = {{ steps = {window_steps} }}",
            "[checkpoint]",
            "background = false",
            'resume = "never"',
            f"[tables.{self.tables}]",
            f"dim = {self.dim}",
            f'optimizer = "{self.optimizer}"',
            "lr = 0.01",
        ]
        for number, kind in enumerate(self.kinds, start=1):
            arch = _ARCHS[kind].format(hidden=list(self.hidden))
            lines += [f"[members.m{number}_{kind}]", f'tables = "{self.tables}"', f"arch = {arch}"]
        return "\n".join(lines) + "\n"

    def rough_step_seconds(self, *, ranks: int) -> float:
        """About how long a step takes, to choose the steps of a window by."""
        rows = self.batch_size / ranks
        groups = 1 if self.tables == "shared" else len(self.kinds)
        ids = rows * _NUM_FEATURES * groups
        width = _NUM_FEATURES * self.dim
        macs = rows * len(self.kinds) * (width * self.hidden[0] + self.hidden[0] * self.hidden[-1])
        return (
            ids * (_SECONDS_PER_ID + self.dim * _SECONDS_PER_ID_COLUMN)
            + 6 * macs * _SECONDS_PER_FLOP
            + _NUM_FEATURES * groups * _SECONDS_PER_TABLE
            + len(self.kinds) * _SECONDS_PER_MEMBER
        )


def _kinds(count: int, *, first: int = 0) -> tuple[str, ...]:
    return tuple(_KINDS[(first + number) % len(_KINDS)] for number in range(count))


def _case(
    use: Use,
    number: int,
    kinds: tuple[str, ...],
    tables: Literal["shared", "own"],
    shape: tuple[int, int, str],
    hidden: tuple[int, ...] = (128, 64),
) -> Case:
    dim, batch_size, optimizer = shape
    ranks = {"held_out": (1, 2), "calibration": (1, 2), "bytes": (4,)}[use]
    letter = {"held_out": "h", "calibration": "c", "bytes": "b"}[use]
    return Case(
        name=f"{letter}{number:02d}_{len(kinds)}_{tables}_d{dim}_b{batch_size}_{optimizer}",
        use=use,
        kinds=kinds,
        tables=tables,
        dim=dim,
        batch_size=batch_size,
        optimizer=optimizer,
        hidden=hidden,
        ranks=ranks,
    )


def study_cases() -> list[Case]:
    """All cases: those held out, those to calibrate on, and those of four ranks for table bytes alone."""
    sgd, adagrad, rowwise = "sgd", "adagrad", "rowwise_adagrad"
    held_out = [
        _case("held_out", 1, ("mlp",), "shared", (8, 16_384, sgd)),
        _case("held_out", 2, ("mlp",), "shared", (16, 4_096, rowwise), (256, 128)),
        _case("held_out", 3, ("dcn_v2",), "own", (32, 8_192, adagrad)),
        _case("held_out", 4, ("dlrm",), "shared", (64, 2_048, sgd), (256, 128)),
        _case("held_out", 5, ("deepfm",), "own", (16, 16_384, rowwise)),
        _case("held_out", 6, ("dcn_v2",), "shared", (64, 1_024, adagrad), (256, 128)),
        _case("held_out", 7, ("mlp", "dlrm"), "shared", (16, 8_192, adagrad)),
        _case("held_out", 8, ("mlp", "deepfm"), "own", (8, 4_096, rowwise)),
        _case("held_out", 9, ("dcn_v2", "dlrm"), "own", (32, 2_048, sgd)),
        _case("held_out", 10, ("mlp", "mlp"), "shared", (32, 16_384, rowwise), (64, 32)),
        _case("held_out", 11, ("deepfm", "mlp"), "own", (64, 1_024, adagrad)),
        _case("held_out", 12, ("deepfm", "dcn_v2"), "shared", (8, 1_024, sgd)),
        _case("held_out", 13, _kinds(3), "shared", (16, 2_048, rowwise)),
        _case("held_out", 14, ("mlp",) * 3, "own", (16, 8_192, sgd), (64, 32)),
        _case("held_out", 15, _kinds(4), "shared", (32, 4_096, adagrad)),
        _case("held_out", 16, _kinds(4), "own", (8, 2_048, adagrad)),
        _case("held_out", 17, _kinds(4), "shared", (8, 8_192, rowwise), (64, 32)),
        _case("held_out", 18, _kinds(4, first=2), "own", (16, 4_096, rowwise), (64, 32)),
        _case("held_out", 19, _kinds(4), "own", (32, 1_024, sgd)),
        _case("held_out", 20, _kinds(6), "shared", (64, 1_024, rowwise)),
        _case("held_out", 21, _kinds(6), "own", (8, 4_096, sgd), (64, 32)),
        _case("held_out", 22, _kinds(8), "shared", (16, 4_096, sgd), (64, 32)),
        _case("held_out", 23, _kinds(8), "own", (8, 1_024, rowwise)),
        _case("held_out", 24, _kinds(8, first=1), "own", (16, 2_048, adagrad), (64, 32)),
    ]
    calibration = [
        _case("calibration", 1, ("mlp",), "shared", (16, 8_192, sgd)),
        _case("calibration", 2, ("dcn_v2",), "own", (32, 2_048, rowwise)),
        _case("calibration", 3, ("dlrm", "mlp"), "shared", (64, 4_096, adagrad)),
        _case("calibration", 4, ("deepfm", "dlrm"), "own", (16, 1_024, sgd)),
        _case("calibration", 5, _kinds(3, first=1), "shared", (8, 16_384, adagrad), (64, 32)),
        _case("calibration", 6, _kinds(4), "own", (32, 2_048, rowwise)),
        _case("calibration", 7, _kinds(5), "shared", (16, 2_048, sgd), (256, 128)),
        _case("calibration", 8, _kinds(8), "own", (8, 2_048, adagrad), (64, 32)),
        _case("calibration", 9, _kinds(8, first=2), "shared", (32, 1_024, rowwise)),
        _case("calibration", 10, ("dlrm",), "own", (64, 8_192, rowwise), (64, 32)),
    ]
    more_ranks = [
        _case("bytes", 1, ("dcn_v2",), "own", (32, 2_048, adagrad)),
        _case("bytes", 2, _kinds(4), "shared", (16, 2_048, rowwise)),
        _case("bytes", 3, _kinds(4), "own", (16, 1_024, sgd)),
    ]
    return [*calibration, *held_out, *more_ranks]
