"""Accounting: every line of every input is a row or in quarantine, and too many of the latter end the preparation."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import DataError
from trainer import storage
from trainer.data.preparing.pieces import PieceRecord
from trainer.data.preparing.preparation_settings import PreparationSettings
from trainer.data.preparing.prepared_folder import QUARANTINE_NAME, PreparedFolder
from trainer.data.preparing.splits import Split
from trainer.data.preparing.text_files import DAMAGED_GZIP


@dataclass(frozen=True, kw_only=True)
class InputAccount:
    """What became of the lines of one file: num_lines = num_rows + num_quarantined."""

    num_lines: int
    num_rows: int
    num_quarantined: int
    reasons: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return dataclasses.asdict(self)


def account_for(
    settings: PreparationSettings, folder: PreparedFolder, records: Sequence[PieceRecord]
) -> list[InputAccount]:
    """The account of each file; bad lines are put into quarantine first, so that they can be looked at.

    Raises:
        DataError: more bad lines than allowed, a damaged file, or no row at all.
    """
    if settings.shard[0] == 0:
        _write_quarantine(settings, folder, records)
    by_file: list[list[PieceRecord]] = [[] for _ in settings.inputs]
    for record in records:
        by_file[record.name.file].append(record)
    accounts = [_account(of_file) for of_file in by_file]
    for account in accounts:
        assert account.num_lines == account.num_rows + account.num_quarantined, "a line is unaccounted for"
    _refuse(settings, accounts, by_file)
    return accounts


def _account(records: Sequence[PieceRecord]) -> InputAccount:
    reasons: Counter[str] = Counter()
    for record in records:
        reasons.update(record.bad)
    return InputAccount(
        num_lines=sum(record.num_lines for record in records),
        num_rows=sum(record.num_rows for record in records),
        num_quarantined=reasons.total(),
        reasons=dict(sorted(reasons.items())),
    )


def _refuse(
    settings: PreparationSettings, accounts: Sequence[InputAccount], by_file: Sequence[Sequence[PieceRecord]]
) -> None:
    quarantine = storage.join(settings.output, QUARANTINE_NAME)
    for path, account in zip(settings.inputs, accounts, strict=True):
        if account.reasons.get(DAMAGED_GZIP) and not settings.allow_damaged:
            raise DataError(
                f"{path}: {DAMAGED_GZIP}, after {account.num_rows:,} rows, and nobody knows how many are missing; fetch"
                " it again, or give --allow-damaged to go on with what is there"
            )
    lines = sum(account.num_lines for account in accounts)
    bad = sum(account.num_quarantined for account in accounts)
    bad -= sum(account.reasons.get(DAMAGED_GZIP, 0) for account in accounts)  # these are allowed, or it has ended
    if bad > settings.max_bad_fraction * lines:
        shares = [account.num_quarantined / max(account.num_lines, 1) for account in accounts]
        worst = shares.index(max(shares))
        account = accounts[worst]
        reason = max(account.reasons, key=lambda name: account.reasons[name])
        first = _first(by_file[worst], before=settings.input_format.layout.num_header_lines)
        raise DataError(
            f"{bad:,} of {lines:,} lines are no rows, more than --max-bad-fraction {settings.max_bad_fraction:g}"
            f" allows; worst is {settings.inputs[worst]} with {account.num_quarantined:,} of {account.num_lines:,},"
            f" first {first}, most often {reason!r}; see {quarantine}, correct the file or raise the"
            " limit, and run again"
        )
    if not any(account.num_rows for account in accounts):
        raise DataError(f"{settings.inputs[0]}: no row in any input; name files that hold rows")


def _first(records: Sequence[PieceRecord], *, before: int) -> str:
    for record in records:
        if record.first_bad is not None:
            line, reason, detail = record.first_bad
            return f"line {before + line + 1:,} ({reason}: {detail})"
        before += record.num_lines
    raise AssertionError("a file with bad lines has a first one")


def _write_quarantine(settings: PreparationSettings, folder: PreparedFolder, records: Sequence[PieceRecord]) -> None:
    """One JSON object a line: input, part where it is known, line from 1, reason, what was found, the line's text."""
    path = storage.join(folder.root, QUARANTINE_NAME)
    if storage.is_file(path):
        storage.remove_file(path)
    if not any(record.num_bad for record in records):
        return
    with storage.open_file(path, "wb") as file:
        for entry in _quarantined(settings, folder.scratch, records):
            file.write((json.dumps(entry) + "\n").encode())


def _quarantined(
    settings: PreparationSettings, scratch: str, records: Sequence[PieceRecord]
) -> Iterator[dict[str, Any]]:
    before = 0
    for record, previous in zip(records, [None, *records], strict=False):
        if previous is None or previous.name.file != record.name.file:
            before = settings.input_format.layout.num_header_lines
        if record.num_bad:
            file = record.name.file
            with storage.open_file(record.name.path(scratch, "bad"), "rb") as bad:
                for line in bad:
                    entry = json.loads(line)
                    entry["line"] += before + 1
                    yield {"input": settings.inputs[file], "part": _part(settings.split, file), **entry}
        before += record.num_lines


def _part(split: Split, file: int) -> str | None:
    """The part the line would have gone to, where its file decides that."""
    return split.names[file] if split.kind == "file" else None
