"""AUC by members, from a file."""

from __future__ import annotations

import json

import pytest

from configs.errors import ConfigError
from trainer.planning.quality import read_quality


def test_a_list_is_read_in_the_order_of_members(tmp_path):
    path = tmp_path / "auc.json"
    path.write_text(json.dumps([{"members": 4, "auc": 0.81, "interval": 0.001}, {"members": 1, "auc": 0.8}]))
    expected = [{"members": 1, "auc": 0.8}, {"members": 4, "auc": 0.81, "interval": 0.001}]
    assert read_quality(str(path)) == expected
    path.write_text(json.dumps({"quality": expected}))
    assert read_quality(str(path)) == expected


def test_an_ensemble_report_is_read(tmp_path):
    path = tmp_path / "report.json"
    points = [{"size": 1, "mean": 0.79, "num_subsets": 3}, {"size": 2, "mean": 0.8, "num_subsets": 1}]
    path.write_text(json.dumps({"curve": {"auc": {"points": points}}}))
    assert read_quality(str(path)) == [{"members": 1, "auc": 0.79}, {"members": 2, "auc": 0.8}]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        '{"points": []}',
        '[{"members": 1}]',
        '[{"members": 0, "auc": 0.8}]',
        '[{"members": 1, "auc": 80.0}]',
        '[{"members": true, "auc": 0.8}]',
        '[{"members": 1, "auc": NaN}]',
        '[{"members": 1, "auc": 0.8, "interval": -1.0}]',
        '[{"members": 1, "auc": 0.8}, {"members": 1, "auc": 0.9}]',
    ],
)
def test_anything_else_is_refused(content, tmp_path):
    path = tmp_path / "auc.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"^--quality: .*(give a|leave one)"):
        read_quality(str(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"^--quality: no file"):
        read_quality(str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"^--quality: .*cannot be read"):
        read_quality(str(tmp_path))
