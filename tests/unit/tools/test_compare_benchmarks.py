"""The comparison of two records: from files to the sentence, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import EXIT_DONE, EXIT_REFUSED
from tools.compare_benchmarks import main

PAGES = Path(__file__).resolve().parents[3] / "docs" / "benchmarks"


def test_a_shipped_record_agrees_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PAGES / "adult.json"), str(PAGES / "adult.json")]) == EXIT_DONE
    assert "46 of 46 differences hold zero" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("not json", "not a record of a benchmark (Expecting value"),
        ("[1]", "it has no 'name'"),
        ('{"name": "adult"}', "it has no 'groups', 'machine'"),
        ("3", "not a record of a benchmark"),
    ],
)
def test_what_is_no_record_is_refused(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "made.json"
    if text is not None:
        path.write_text(text)
    assert main([str(path), str(PAGES / "adult.json")]) == EXIT_REFUSED
    told = capsys.readouterr().err
    assert told.startswith(f"error: {path}: ") and said in told
