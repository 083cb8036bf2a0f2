"""What a folder holds that is not finished predictions: how far a stopped job is, or nothing of ours."""

from __future__ import annotations

from configs.errors import DataError
from trainer import storage
from trainer.predictions.manifest import MANIFEST_NAME
from trainer.predictions.output_folder import PLAN_NAME
from trainer.predictions.range_files import RECORDS_FOLDER


def check_folder(folder: str) -> None:
    """Refuses what is no folder of predictions, finished or not.

    Raises:
        DataError: says so.
    """
    if not storage.exists(folder) or storage.is_file(folder):
        raise DataError(f"no folder {folder!r}; name one that trainer/score.py has written")


def how_far(folder: str) -> str | None:
    """What is there of a job that is not finished; None where there is no such job.

    Raises:
        DataError: its plan cannot be read.
    """
    records = storage.join(folder, RECORDS_FOLDER)
    if storage.is_file(storage.join(folder, MANIFEST_NAME)) or not storage.is_file(storage.join(records, PLAN_NAME)):
        return None
    range_rows, parts = _planned(storage.join(records, PLAN_NAME))
    wanted = {
        f"{name}-{first:012d}": min(range_rows, rows - first)
        for name, rows in parts.items()
        for first in range(0, rows, range_rows)
    }
    there, recorded = set(storage.names(folder)), set(storage.names(records))
    done = [name for name in wanted if f"{name}.parquet" in there and f"{name}.json" in recorded]
    rows = sum(wanted[name] for name in done)
    return (
        f"{len(done):,} of {len(wanted):,} ranges, {rows:,} of {sum(parts.values()):,} rows, are there; start the same"
        " command again to go on"
    )


def _planned(path: str) -> tuple[int, dict[str, int]]:
    """Rows of a range, and of each part."""
    try:
        plan = storage.read_json(path)
        range_rows = int(plan["settings"]["range_rows"])
        parts = {name: int(part["num_rows"]) for name, part in plan["data"]["parts"].items()}
        if range_rows < 1:
            raise ValueError(f"settings.range_rows is {range_rows}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no plan of a scoring job ({type(error).__name__}: {error}); delete the folder, and score again"
        ) from error
    return range_rows, parts
