"""How a benchmark was made: its command, its machine and time, and its rows."""

from __future__ import annotations

import shlex

import numpy as np

from configs.benchmark_schema import Window
from trainer import storage
from trainer.benchmark.page.markdown import count, plain, sections, spelled, table
from trainer.benchmark.preparing import prepare_words
from trainer.benchmark.report import Report

_HOUR = 3600.0


def how_section(report: Report, *, given: str) -> str:
    """The command that names the benchmark so, what it took, and the rows."""
    benchmark, data = report.benchmark, report.benchmark.data
    prepare = [
        shlex.join(["python", *prepare_words(data, window, source="DIR", output=f"data/{of}")])
        for of, window in data.windows.items()
    ]
    words = ["python", "tools/run_benchmark.py", _relative(given), "--source", "DIR"]
    command = f"```\n{shlex.join(words)}\n```"
    files = spelled([f"`{file}`" for file in data.files])
    groups = benchmark.groups
    took = (
        f"{count(report.num_trainings)} trainings in {groups} group{'s' if groups > 1 else ''}, of settings in"
        f" `{_relative(benchmark.run)}`: {_hours(report.results.train_seconds)} of training one after the other,"
        f" {_hours(report.results.cpu_seconds)} of processor time with scoring, on {report.machine}."
    )
    return sections(
        command,
        f"DIR is a folder with {files}. {_sentence(data.origin)} {_sentence(data.licence)}",
        took,
        "The rows are prepared by\n\n```\n" + "\n".join(prepare) + "\n```",
        _cuts(report),
    )


def _cuts(report: Report) -> str:
    data = report.benchmark.data
    rows = []
    for name, window in data.windows.items():
        labels_N = report.results.rows[name].labels_N
        judged = [count(len(labels_N)), plain(float(np.mean(labels_N)), 4)]
        rows.append([name, *_parts(window), *judged])
    head = ["cut", "trained on", "stops training", "merges fitted on", "judged", "rows judged", "label rate"]
    return sections(f"Judged: {data.judged}.", table(head, rows, words=5))


def _parts(window: Window) -> list[str]:
    def of(parts: tuple[str, ...]) -> str:
        shares = [f"{part} ({window.split[part]:g})" if part in window.split else part for part in parts]
        return ", ".join(shares) or "–"

    return [of(window.train), of(window.valid), of(window.tune), of(window.test)]


def _hours(seconds: float) -> str:
    return f"{plain(seconds / _HOUR, 2)} h"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _relative(path: str) -> str:
    """As it is, or the name alone: where a file lies on one machine is of no use on another."""
    return storage.base_name(path) if path.startswith("/") else path
