"""The matrix tells what is wrong, and outlives ranks that die."""

from __future__ import annotations

import json
import sys

import pytest

from configs.errors import ChorusError
from trainer.analysis.reliability import reshard_matrix
from trainer.analysis.reliability.reshard_compare import Comparison
from trainer.analysis.reliability.reshard_layouts import Layout
from trainer.analysis.reliability.reshard_matrix import Cell, Matrix, ReshardMatrix, as_json, as_markdown

ROWS, COLUMNS = Layout(world_size=1, placement="row_wise"), Layout(world_size=2, placement="column_wise")


def _cell(saved: Layout, loaded: Layout, outcome: str, reason: str = "") -> Cell:
    found = Comparison(outcome=outcome, reason=reason)
    return Cell(rule="rowwise_adagrad", saved=saved, loaded=loaded, found=found)


def _matrix(*, mean: str = "mean", reason: str = "tables g/f: says why in DIR/x") -> Matrix:
    cells = [
        _cell(ROWS, ROWS, "equal"),
        _cell(ROWS, COLUMNS, "refused", reason),
        _cell(COLUMNS, ROWS, mean),
        _cell(COLUMNS, COLUMNS, "equal"),
    ]
    return Matrix(cells=cells, continued=[_cell(ROWS, ROWS, "equal")])


def test_a_matrix_as_it_must_be(tmp_path):
    matrix = _matrix(reason=f"tables g/f: says why in {tmp_path}/x")
    assert matrix.wrong == []
    text = as_markdown(matrix, command="python x", folder=str(tmp_path))
    assert "4 pairs in 0:00: 2 equal, 1 refused, 1 mean." in text
    assert "| 1 RW | = | no |\n| 2 CW | mean | = |" in text
    assert 'Refused, as `1 row_wise` -> `2 column_wise`: "tables g/f: says why in DIR/x"' in text
    assert "WRONG" not in text
    assert len(json.loads(json.dumps(as_json(matrix)))["cells"]) == 4


@pytest.mark.parametrize("change", [{"mean": "equal"}, {"mean": "FAILED"}, {"reason": "something broke"}])
def test_a_cell_that_is_another_is_wrong(change):
    matrix = _matrix(**change)
    assert len(matrix.wrong) == 1
    assert "WRONG: rowwise_adagrad" in as_markdown(matrix, command="python x", folder="none")


WORKER = """
import json, os, sys
body = json.load(open(sys.argv[2]))
for number, task in enumerate(body["tasks"]):
    for source in task["sources"]:
        if source == "bad":
            os._exit(1)
        with open(body["results"], "a") as file:
            file.write(json.dumps({"task": number, "source": source, "refused": ""}) + "\\n")
"""


def _task(layout: str, *sources: str) -> dict[str, object]:
    return {"do": "load", "rule": "sgd", "layout": layout, "sources": dict.fromkeys(sources, "")}


def test_ranks_that_die_fail_one_cell_and_others_go_on(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(
        reshard_matrix, "torchrun", lambda _script, *words, ranks: [sys.executable, f"{tmp_path}/worker.py", *words]
    )
    matrix = ReshardMatrix(str(tmp_path), rules=["sgd"], worlds=[1], say=lambda _text: None)
    tasks = [_task("1 row_wise", "a", "bad", "b"), _task("1 table_wise", "bad"), _task("1 column_wise", "c")]
    told = [(task["layout"], source, refused[:6]) for task, source, refused in matrix._serve("load", tasks)]
    assert told == [
        ("1 row_wise", "a", ""),
        ("1 row_wise", "bad", "FAILED"),
        ("1 row_wise", "b", ""),
        ("1 table_wise", "bad", "FAILED"),
        ("1 column_wise", "c", ""),
    ]


def test_ranks_that_always_die_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(
        reshard_matrix, "torchrun", lambda *_words, ranks: [sys.executable, "-c", "raise SystemExit(1)"]
    )
    matrix = ReshardMatrix(str(tmp_path), rules=["sgd"], worlds=[1], say=lambda _text: None)
    with pytest.raises(ChorusError, match="died 20 times"):
        list(matrix._serve("load", [_task("1 row_wise", *map(str, range(30)))]))
