"""SoakLog: every event of a soak as a line of JSON, and what they come to."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer import storage
from trainer.analysis.reliability.job_output import Phase
from trainer.analysis.reliability.kills import MEANINGS
from trainer.clock import clock

EVENTS_NAME = "events.jsonl"
_PHASES: Mapping[Phase, str] = {
    "launching": "torchrun starts, no rank is there yet",
    "importing": "a rank imports",
    "meeting": "the ranks find each other",
    "assembling": "assembling: model, shards, initial weights, optimizers",
    "planning": "planning",
    "restoring": "restoring: verifying and loading a checkpoint",
    "steps": "steps",
    "evaluation": "evaluation",
    "end": "after the last step",
}


@dataclass(frozen=True, kw_only=True)
class SoakCounts:
    """What a soak has come to so far."""

    kills: int = 0
    in_flight: int = 0  # kills of a job that has not ended
    jobs: int = 0
    restarts: int = 0  # attempts beyond the first of each job
    identical: int = 0  # kills whose job ended like the reference
    failures: tuple[Mapping[str, Any], ...] = ()
    by_kind: Mapping[str, int] = field(default_factory=dict)
    by_phase: Mapping[str, int] = field(default_factory=dict)
    while_writing: int = 0
    seconds_to_step: tuple[float, ...] = ()  # from each kill to the next step
    seconds: float = 0.0  # of all jobs
    untouched: int = 0  # jobs that ended before their kill came

    def as_json(self) -> dict[str, Any]:
        """Plain values, with median and maximum in place of the list."""
        plain = {name: value for name, value in vars(self).items() if name != "seconds_to_step"}
        times = self.seconds_to_step
        spread = {"median": statistics.median(times), "max": max(times)} if times else None
        return plain | {"failures": list(self.failures), "seconds_to_next_step": spread}


class SoakLog:
    """The events of a soak, appended to a file; an earlier start's are read again.

    Args:
        folder: Where the file is.
    """

    def __init__(self, folder: str) -> None:
        self._path = storage.join(folder, EVENTS_NAME)
        lines = storage.read_text(self._path).splitlines() if storage.is_file(self._path) else []
        self.events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]
        if len(self.events) < len(lines):  # a line that was cut when the command was killed
            storage.write_text(self._path, "".join(json.dumps(event) + "\n" for event in self.events))

    def add(self, event: str, **facts: Any) -> dict[str, Any]:
        """Appends an event; gives it."""
        line = {"event": event, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), **facts}
        self.events.append(line)
        with storage.open_file(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def of(self, event: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [line for line in self.events if line["event"] == event]

    def counts(self) -> SoakCounts:
        """What they come to. A kill counts as recovered once its job has ended like the reference."""
        kills, jobs = self.of("kill"), self.of("job")
        after = {line["kill"]: line for line in self.of("recovered")}
        ended = {line["job"]: line for line in jobs}
        return SoakCounts(
            kills=len(kills),
            in_flight=sum(kill["job"] not in ended for kill in kills),
            jobs=len(jobs),
            restarts=sum(line["attempts"] - 1 for line in jobs),
            identical=sum(kill["job"] in ended and not ended[kill["job"]]["problems"] for kill in kills),
            failures=tuple(line for line in jobs if line["problems"]),
            by_kind=dict(Counter(kill["kind"] for kill in kills)),
            by_phase=dict(Counter(kill["phase"] for kill in kills)),
            while_writing=sum(kill["writing"] for kill in kills),
            seconds_to_step=tuple(line["seconds"] for line in after.values() if line["seconds"] is not None),
            seconds=sum(line["seconds"] for line in jobs),
            untouched=sum(line["kills"] == 0 for line in jobs),
        )


def summary(counts: SoakCounts, *, command: str, remarks: Sequence[str] = ()) -> str:
    """The counts as Markdown, to be pasted into the documentation."""
    times = counts.seconds_to_step
    spread = f"{statistics.median(times):.1f} s, {max(times):.1f} s" if times else "none"
    rows = [
        ("Kills delivered", f"{counts.kills}"),
        *((f"- {MEANINGS[kind]}", f"{counts.by_kind[kind]}") for kind in MEANINGS if kind in counts.by_kind),
        *((f"- at: {meaning}", f"{counts.by_phase[p]}") for p, meaning in _PHASES.items() if p in counts.by_phase),
        ("- while a checkpoint was being written", f"{counts.while_writing}"),
        ("Jobs ended", f"{counts.jobs}, of which {counts.untouched} ended before their kill came"),
        ("Restarts", f"{counts.restarts}"),
        ("Kills whose job ended bit-identical to the uninterrupted run", f"{counts.identical}"),
        ("Failures (hanging, other bits, damaged checkpoints, processes left)", f"{len(counts.failures)}"),
        ("Seconds from a kill to the next step: median, largest", spread),
        ("Time of all jobs", clock(counts.seconds)),
    ]
    lines = [f"`{command}`", "", "| What | Figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    lines += [f"\n{remark}" for remark in remarks]
    for failure in counts.failures:
        lines.append(f"\nJob {failure['job']} FAILED: {'; '.join(failure['problems'])} (see {failure['folder']})")
    return "\n".join(lines) + "\n"
