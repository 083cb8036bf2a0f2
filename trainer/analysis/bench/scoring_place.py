"""ScoringPlace: the prepared rows and the trained runs that scoring is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer import storage
from trainer.analysis.bench.place import TEXT_BYTES_PER_ROW, BenchPlace
from trainer.checkpoints.stored_checkpoint import newest_checkpoint
from trainer.data.manifest import MANIFEST_NAME

DAYS = ("day_0", "day_1", "day_2", "day_3")
FEW, FEW_ROWS = "few", 1_000  # a part on which a job is start-up alone
_BYTES_PER_ROW = TEXT_BYTES_PER_ROW + 400  # what is prepared, its scratch files and predictions
_BYTES_PER_WEIGHT = 4


@dataclass(frozen=True, kw_only=True)
class ScoringSize:
    """What is made.

    Attributes:
        rows: Of each day.
        table_rows: Of each of the 26 tables.
        dim: Columns of an embedding.
        batch_size: Rows of a step, in training and in scoring.
    """

    rows: int
    table_rows: int
    dim: int
    batch_size: int


class ScoringPlace:
    """Rows in the Criteo layout (13 numbers, 26 ids) of four days, and members of one width trained on them.

    Args:
        place: Where they lie.
        size: What is made.
    """

    def __init__(self, place: BenchPlace, size: ScoringSize) -> None:
        self.place, self.size = place, size

    @property
    def data(self) -> str:
        """The prepared folder; it is made at first."""
        root, size = self.place.path("prepared"), self.size
        if not storage.is_file(storage.join(root, MANIFEST_NAME)):
            tables = 26 * size.table_rows * size.dim * _BYTES_PER_WEIGHT
            self.place.need(len(DAYS) * size.rows * _BYTES_PER_ROW + 4 * tables)
            log = self.place.log(rows=len(DAYS) * size.rows, days=len(DAYS))
            few = Path(self.place.head(log, rows=FEW_ROWS))
            few = few.rename(few.with_name(f"{FEW}.tsv"))
            words = ["--input", *log.files, str(few), "--output", root, "--vocabulary", "hash"]
            self.place.run("tools/prepare_criteo.py", *words, "--hash-rows", str(size.table_rows))
            self.place.remove("log")
        return root

    def trained(self, hidden: Sequence[int], *, members: int, steps: int) -> str:
        """A checkpoint of m1, m2, ... on shared tables; it is made at first.

        Args:
            hidden: Their hidden widths.
            members: Their number.
            steps: Of training, on day_0.
        """
        name = f"run_{'_'.join(map(str, hidden))}_x{members}_{steps}"
        folder, config = self.place.path(name), self.place.path(f"{name}.toml")
        if not storage.names(storage.join(folder, "checkpoints")):
            Path(config).write_text(self._text(hidden, members=members, steps=steps))
            self.place.remove(name)
            words = [f"--run.folder={folder}", f"--data.root={self.data}", f'--data.train=["{DAYS[0]}"]']
            self.place.run("trainer/main.py", "--config", config, *words)
        return newest_checkpoint(folder)

    def _text(self, hidden: Sequence[int], *, members: int, steps: int) -> str:
        size = self.size
        lines = [
            "[train]",
            f"batch_size = {size.batch_size}",
            f"until = {{ steps = {steps} }}",
            "[score]",
            f"batch_size = {size.batch_size}",
            "[tables.shared]",
            f"dim = {size.dim}",
            "lr = 0.05",
        ]
        for number in range(1, members + 1):
            lines += [f"[members.m{number}]", f'arch = {{ kind = "mlp", hidden = {list(hidden)} }}']
        return "\n".join(lines) + "\n"
