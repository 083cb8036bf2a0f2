"""Quality: AUC by the number of members, from a benchmark's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.errors import ChorusError, ConfigError
from trainer import storage

_FORMS = (
    'a list of {"members": 4, "auc": 0.8012}, with "interval" if there is one, or what tools/report_ensemble.py --json'
    " writes"
)


def read_quality(path: str) -> list[dict[str, Any]]:
    """Members and AUC, by members.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    try:
        content = storage.read_json(path)
    except FileNotFoundError:
        raise ConfigError(f"--quality: no file {path!r}; give a JSON file with {_FORMS}") from None
    except (OSError, ValueError, ChorusError) as error:
        raise ConfigError(f"--quality: {path!r} cannot be read ({error}); give a JSON file with {_FORMS}") from None
    try:
        found = [_entry(one) for one in _entries(content)]
    except (KeyError, TypeError, ValueError, AttributeError):
        found = []
    if not found:
        raise ConfigError(f"--quality: {path!r} holds no AUC by members; give {_FORMS}")
    counts = [one["members"] for one in found]
    doubled = next((count for count in counts if counts.count(count) > 1), None)
    if doubled:
        raise ConfigError(f"--quality: {path!r} has {doubled} members twice; leave one of them")
    return sorted(found, key=lambda one: one["members"])


def _entries(content: Any) -> list[Mapping[str, Any]]:
    if isinstance(content, Mapping) and "curve" in content:
        return [{"members": point["size"], "auc": point["mean"]} for point in content["curve"]["auc"]["points"]]
    if isinstance(content, Mapping):
        content = content["quality"]
    if not isinstance(content, list):
        raise TypeError("not a list")
    return content


def _entry(one: Mapping[str, Any]) -> dict[str, Any]:
    members, auc, interval = one["members"], one["auc"], one.get("interval")
    if type(members) is not int or members < 1 or type(auc) is not float or not 0 <= auc <= 1:
        raise ValueError("out of range")
    entry = {"members": members, "auc": auc}
    if interval is not None:
        if type(interval) is not float or interval < 0:
            raise ValueError("interval")
        entry["interval"] = interval
    return entry
