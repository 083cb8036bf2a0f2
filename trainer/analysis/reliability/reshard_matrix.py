"""ReshardMatrix: saves under every layout, loads under every other, and says of each pair what came of it."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import ChorusError
from trainer import storage
from trainer.analysis.reliability.processes import ROOT, end_all, launch, torchrun
from trainer.analysis.reliability.reshard_compare import (
    Comparison,
    StoredState,
    compare_continued,
    compare_loaded,
)
from trainer.analysis.reliability.reshard_layouts import (
    MORE_STEPS,
    STEPS,
    Layout,
    Outcome,
    expected,
    layouts,
)
from trainer.checkpoints.stored_checkpoint import CHECKPOINTS_NAME
from trainer.clock import clock

PROGRAM = str(ROOT / "tools" / "reshard_matrix.py")
_PARTS = ("saved", "loaded", "on", "work")
_SILENT_SECONDS = 300.0
_SAY_SECONDS = 5.0
_MOST_DEATHS = 20
_SIGNS: Mapping[Outcome, str] = {"equal": "=", "mean": "mean", "refused": "no", "FAILED": "FAILED"}
_SHORT = {
    "data_parallel": "DP",
    "table_wise": "TW",
    "row_wise": "RW",
    "column_wise": "CW",
    "table_row_wise": "TRW",
    "table_column_wise": "TCW",
    "grid": "G",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What came of one pair."""

    rule: str
    saved: Layout
    loaded: Layout
    found: Comparison

    @property
    def is_as_expected(self) -> bool:
        """Whether it came to what it must; a refusal must name the table."""
        is_named = self.found.outcome != "refused" or "tables " in self.found.reason
        return is_named and self.found.outcome == expected(self.rule, saved=self.saved, loaded=self.loaded)


@dataclass(kw_only=True)
class Matrix:
    """All pairs, and the runs that trained on."""

    cells: list[Cell] = field(default_factory=list)
    continued: list[Cell] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def wrong(self) -> list[Cell]:
        """Cells that are not as they must be."""
        return [cell for cell in (*self.cells, *self.continued) if not cell.is_as_expected]


class ReshardMatrix:
    """The matrix, made in a folder.

    Args:
        folder: For checkpoints; what an earlier matrix left there is removed.
        rules: Table optimizers.
        worlds: World sizes.
        say: Told of progress.
    """

    def __init__(self, folder: str, *, rules: Sequence[str], worlds: Sequence[int], say: Callable[[str], None]) -> None:
        self._folder = Path(folder)
        self._rules = rules
        self._worlds = worlds
        self._say = say

    def run(self) -> Matrix:
        """Makes it.

        Raises:
            ChorusError: a layout cannot be trained and saved, so there is nothing to load.
        """
        began = time.monotonic()
        for name in _PARTS:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        matrix = Matrix()
        for task, _, refused in self._serve("save", [self._save_task(*pair) for pair in self._layouts()]):
            if refused:
                raise ChorusError(f"{task['rule']} under {task['layout']}: nothing could be saved: {refused}")
            if untrained := StoredState(self._saved(task["rule"], Layout.named(task["layout"]))).unlike_training():
                raise ChorusError(f"{task['folder']}: the checkpoint has nothing but zeros in {untrained}")
        loads = [self._load_task(*pair) for pair in self._layouts()]
        on = [self._continue_task(*pair) for pair in self._layouts()]
        went_on: list[tuple[dict[str, Any], str]] = []
        for task, source, refused in self._serve("load", loads + on):
            if task["do"] == "continue":
                went_on.append((task, refused))
                continue
            matrix.cells.append(self._cell(task, source, refused))
            shutil.rmtree(Path(task["folder"], source), ignore_errors=True)
        matrix.continued += [self._continued_cell(task, refused) for task, refused in went_on]
        matrix.seconds = time.monotonic() - began
        return matrix

    def _layouts(self) -> list[tuple[str, Layout]]:
        """By world, so that each needs its processes once."""
        pairs = [(rule, layout) for rule in self._rules for layout in layouts(rule, self._worlds)]
        return sorted(pairs, key=lambda pair: pair[1].world_size)

    def _start(self, rule: str) -> Layout:
        """What all train on from."""
        known = reversed(layouts(rule, self._worlds))
        return next(layout for layout in known if not layout.keeps_column_sums(rule))

    def _place(self, what: str, rule: str, layout: Layout) -> str:
        return str(self._folder / what / rule / layout.name.replace(" ", "_"))

    def _saved(self, rule: str, layout: Layout) -> str:
        return storage.join(self._place("saved", rule, layout), CHECKPOINTS_NAME, f"step_{STEPS:010d}")

    def _save_task(self, rule: str, layout: Layout) -> dict[str, Any]:
        return {"do": "save", "rule": rule, "layout": layout.name, "folder": self._place("saved", rule, layout)}

    def _load_task(self, rule: str, layout: Layout) -> dict[str, Any]:
        sources = {saved.name: self._saved(rule, saved) for saved in layouts(rule, self._worlds)}
        task = {"do": "load", "rule": rule, "layout": layout.name, "folder": self._place("loaded", rule, layout)}
        return task | {"sources": sources}

    def _continue_task(self, rule: str, layout: Layout) -> dict[str, Any]:
        start = self._start(rule)
        task = {"do": "continue", "rule": rule, "layout": layout.name, "folder": self._place("on", rule, layout)}
        return task | {"sources": {start.name: self._saved(rule, start)}}

    def _cell(self, task: dict[str, Any], source: str, refused: str) -> Cell:
        rule, saved, loaded = task["rule"], Layout.named(source), Layout.named(task["layout"])
        found = _as_told(refused)
        if found is None:
            written = str(sorted(Path(task["folder"], source).glob("step_*"))[-1])
            found = compare_loaded(self._saved(rule, saved), written)
        return Cell(rule=rule, saved=saved, loaded=loaded, found=found)

    def _continued_cell(self, task: dict[str, Any], refused: str) -> Cell:
        rule, start = task["rule"], self._start(task["rule"])
        found = _as_told(refused)
        if found is None:
            newest = f"{CHECKPOINTS_NAME}/step_{STEPS + MORE_STEPS:010d}"
            one, other = (storage.join(f, newest) for f in (task["folder"], self._place("on", rule, start)))
            found = compare_continued(one, other, start=self._saved(rule, start))
        return Cell(rule=rule, saved=start, loaded=Layout.named(task["layout"]), found=found)

    def _serve(self, what: str, tasks: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, str]]:
        """Has the tasks done, a torchrun for each world; yields (task, source, sentence of the refusal) as they end."""
        total = sum(len(task.get("sources", [""])) for task in tasks)
        began, done, said_at = time.monotonic(), 0, 0.0
        for world in self._worlds:
            of_world = [task for task in tasks if Layout.named(task["layout"]).world_size == world]
            for result in self._serve_world(f"{what}_{world}", of_world, ranks=world):
                yield result
                done += 1
                seconds = time.monotonic() - began
                if time.monotonic() - said_at > _SAY_SECONDS or done == total:
                    said_at = time.monotonic()
                    self._say(f"{what}: {done}/{total}, {clock(seconds)}, ETA {clock(seconds / done * (total - done))}")

    def _serve_world(
        self, name: str, tasks: list[dict[str, Any]], *, ranks: int
    ) -> Iterator[tuple[dict[str, Any], str, str]]:
        """As above. Ranks that die take the result they were at with them; others do what is left."""
        for death in range(_MOST_DEATHS):
            if not tasks:
                return
            place = self._folder / "work" / f"{name}_{death}"
            place.mkdir(parents=True)
            told = 0
            for number, source, refused in _results(place, tasks, ranks=ranks):
                yield tasks[number], source, refused
                told += 1
            left = _left(tasks, told)
            if left:
                task = left[0]
                source = next(iter(task.get("sources", {"": ""})))
                yield task, source, f"FAILED: the ranks ended; see {place}/output.txt"
                left = _left(tasks, told + 1)
            tasks = left
        raise ChorusError(f"{name}: the ranks died {_MOST_DEATHS} times; see {self._folder}/work")


def _results(place: Path, tasks: list[dict[str, Any]], *, ranks: int) -> Iterator[tuple[int, str, str]]:
    """Runs the ranks and yields what they write, while they run."""
    body = {"tasks": tasks, "results": str(place / "results.jsonl")}
    storage.write_json(str(place / "tasks.json"), body)
    results, mark = place / "results.jsonl", str(place)
    command = torchrun(PROGRAM, "--worker", str(place / "tasks.json"), ranks=ranks)
    process = launch(command, mark=mark, output=str(place / "output.txt"))
    taken, news_at = 0, time.monotonic()
    try:
        while True:
            over = process.poll() is not None
            lines = results.read_text().split("\n")[:-1] if results.exists() else []
            for line in lines[taken:]:
                result = json.loads(line)
                yield result["task"], result["source"], result["refused"]
                news_at = time.monotonic()
            taken = len(lines)
            if over or time.monotonic() - news_at > _SILENT_SECONDS:
                return
            time.sleep(0.1)
    finally:
        end_all(mark)


def _left(tasks: list[dict[str, Any]], told: int) -> list[dict[str, Any]]:
    """Tasks without the first `told` results."""
    left = []
    for task in tasks:
        sources = task.get("sources", {"": ""})
        mine, told = min(told, len(sources)), max(0, told - len(sources))
        if mine < len(sources):
            left.append(task | ({"sources": dict(list(sources.items())[mine:])} if "sources" in task else {}))
    return left


def _as_told(refused: str) -> Comparison | None:
    if refused.startswith("FAILED"):
        return Comparison(outcome="FAILED", reason=refused)
    return Comparison(outcome="refused", reason=refused) if refused else None


def as_json(matrix: Matrix) -> dict[str, Any]:
    """Every cell."""

    def plain(cell: Cell) -> dict[str, Any]:
        names = {"rule": cell.rule, "saved": cell.saved.name, "loaded": cell.loaded.name}
        return names | vars(cell.found) | {"as_expected": cell.is_as_expected}

    return {
        "seconds": matrix.seconds,
        "cells": [plain(cell) for cell in matrix.cells],
        "continued": [plain(cell) for cell in matrix.continued],
    }


def as_markdown(matrix: Matrix, *, command: str, folder: str) -> str:
    """A table for each rule, to be pasted into the documentation; the folder is DIR there."""
    count = Counter(cell.found.outcome for cell in matrix.cells)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in count.items())
    lines = [f"`{command}`", "", f"{len(matrix.cells)} pairs in {clock(matrix.seconds)}: {counted}.", ""]
    names = ", ".join(f"{short}: {name}" for name, short in _SHORT.items())
    lines += [
        f"World size and placement ({names}); =: every weight and optimizer state bit-equal; mean: sums of"
        " pieces merged, all else bit-equal; no: refused by name.",
        "",
    ]
    for rule in dict.fromkeys(cell.rule for cell in matrix.cells):
        lines += [f"### {rule}", "", *_table([cell for cell in matrix.cells if cell.rule == rule]), ""]
        lines += _sentences([cell for cell in matrix.cells if cell.rule == rule])
        on = [cell for cell in matrix.continued if cell.rule == rule]
        equal = [cell for cell in on if cell.found.outcome == "equal"]
        if equal:
            lines += [
                f"{MORE_STEPS} steps further from `{on[0].saved.name}` under each of {len(equal)} layouts: no value of"
                f" any weight or optimizer state is more than {max(c.found.most_apart for c in equal):.1e} apart from"
                " training on without a change.",
                "",
            ]
    for cell in matrix.wrong:
        found = f"{cell.found.outcome} ({cell.found.reason or 'no reason'}; {cell.found.most_apart:g} apart)"
        lines.append(f"WRONG: {cell.rule} {cell.saved.name} -> {cell.loaded.name}: {found}")
    return ("\n".join(lines) + "\n").replace(folder, "DIR")


def _table(cells: list[Cell]) -> list[str]:
    by_pair = {(cell.saved, cell.loaded): cell for cell in cells}
    order = list(dict.fromkeys(cell.saved for cell in cells))
    rows = [["saved, loaded", *map(_short, order)], ["---"] * (len(order) + 1)]
    for saved in order:
        found = [by_pair[saved, loaded] for loaded in order]
        rows.append(
            [_short(saved), *(_SIGNS[cell.found.outcome] if cell.is_as_expected else "WRONG" for cell in found)]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _short(layout: Layout) -> str:
    return f"{layout.world_size} {_SHORT[layout.placement]}"


def _sentences(cells: list[Cell]) -> list[str]:
    refused = [cell for cell in cells if cell.found.outcome == "refused"]
    if not refused:
        return []
    first = refused[0]
    return [f'Refused, as `{first.saved.name}` -> `{first.loaded.name}`: "{first.found.reason}"', ""]
