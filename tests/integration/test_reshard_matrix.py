"""A corner of tools/reshard_matrix.py: one world, the rule whose state column-wise placements keep otherwise."""

from __future__ import annotations

import json

import pytest

from tests.support.commands import run_python


@pytest.mark.slow  # tests/parity/test_resume.py and test_elastic_checkpoints.py are the quick ones
def test_a_corner_of_the_matrix(tmp_path):
    words = ("--folder", str(tmp_path), "--rules", "rowwise_adagrad", "--worlds", "1")
    done = run_python("tools/reshard_matrix.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    matrix = json.loads((tmp_path / "matrix.json").read_text())
    found = {(cell["saved"], cell["loaded"]): cell["outcome"] for cell in matrix["cells"]}
    assert len(found) == 16
    whole = ("1 data_parallel", "1 table_wise", "1 row_wise")
    for one in whole:
        assert found["1 column_wise", one] == "mean"
        assert found[one, "1 column_wise"] == "refused"
        assert all(found[one, other] == "equal" for other in whole)
    assert found["1 column_wise", "1 column_wise"] == "equal"
    assert [cell["outcome"] for cell in matrix["continued"]] == ["equal", "equal", "equal", "refused"]
    assert "| 1 CW | mean | mean | mean | = |" in (tmp_path / "matrix.md").read_text()
    assert str(tmp_path) not in (tmp_path / "matrix.md").read_text().partition("\n")[2]
