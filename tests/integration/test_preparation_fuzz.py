"""Damaged click logs: a sentence, or every line accounted for and every row as a plain reader finds it."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ChorusError
from tests.support.click_log import (
    plain_dense,
    plain_dictionaries,
    plain_ids,
    plain_labels,
    plain_log,
    saved_dictionaries,
    synthetic_lines,
)
from tests.support.preparing import HASHED, arrays_of, quarantine, settings_for
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.text_files import DAMAGED_GZIP, TextFile

STRANGE = [b"\0", b"\r", b"\t", b"\n", b"+", b"-", b" ", b"\xff", "é".encode(), b"\xef\xbb\xbf", b"2", b'"', b"x", b"."]
LONG = [b"7" * 2_500, b"0" * 2_500, b"f" * 900, b"9" * 19, b"-9223372036854775808", b"\xe9" * 300]


@dataclass(frozen=True)
class Damaged:
    """A log after its mutations; packed: as its gzip file holds it."""

    text: bytes
    tokens: str
    labelled: bool
    packed: bytes | None
    kind: str = "whole"  # of the gzip file: whole, members, cut, flipped


@st.composite
def damaged_logs(draw: st.DrawFn) -> Damaged:
    tokens = draw(st.sampled_from(["hex", "int"]))
    labelled = draw(st.sampled_from([True, True, False]))
    num_rows = draw(st.sampled_from([0, 1, 2, 8, 8, 25, 25]))
    text = bytearray("\n".join(synthetic_lines(num_rows, seed=draw(st.integers(0, 50)), tokens=tokens)).encode())
    if not labelled:
        text = bytearray(b"\n".join(line[2:] for line in bytes(text).split(b"\n")))
    if num_rows:
        text += b"\n"
    for _ in range(draw(st.integers(1, 4))):
        _mutate(text, draw)
    if not draw(st.booleans()):
        return Damaged(text=bytes(text), tokens=tokens, labelled=labelled, packed=None)
    kind = draw(st.sampled_from(["whole", "whole", "cut", "flipped", "members"]))
    packed = bytearray(gzip.compress(bytes(text), mtime=0))
    if kind == "cut":
        del packed[draw(st.integers(2, len(packed) - 1)) :]
    elif kind == "flipped":
        packed[draw(st.integers(2, len(packed) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif kind == "members":
        middle = draw(st.integers(0, len(text)))
        packed = bytearray(gzip.compress(bytes(text[:middle])) + gzip.compress(bytes(text[middle:])))
    return Damaged(text=bytes(text), tokens=tokens, labelled=labelled, packed=bytes(packed), kind=kind)


def _mutate(text: bytearray, draw: st.DrawFn) -> None:
    place = draw(st.integers(0, len(text)))
    kind = draw(
        st.sampled_from(
            ["flip", "insert", "delete", "tab", "windows", "end", "field", "long", "label", "double", "none"]
        )
    )
    if kind == "flip" and place < len(text):
        text[place] ^= 1 << draw(st.integers(0, 7))
    elif kind == "insert":
        text[place:place] = draw(st.sampled_from(STRANGE))
    elif kind == "delete":
        del text[place : place + draw(st.integers(1, 200))]
    elif kind == "tab" and (found := text.find(b"\t", place)) >= 0:
        text[found : found + 1] = draw(st.sampled_from([b"", b"\t\t", b" "]))
    elif kind == "windows":
        text[:] = text.replace(b"\n", b"\r\n")
    elif kind == "end" and text.endswith(b"\n"):
        del text[-1]
    elif kind in ("field", "long") and (found := text.find(b"\t", place)) >= 0:
        text[found + 1 : found + 1] = draw(st.sampled_from(LONG if kind == "long" else STRANGE))
    elif kind == "label" and (found := text.find(b"\n", place)) >= 0:
        text[found + 1 : found + 2] = draw(st.sampled_from([b"2", b"", b"-", b"10"]))
    elif kind == "double":
        text += text[: text.find(b"\n") + 1]


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """Bytes of a piece, and of a block, which is longer than any line that may be a row."""
    return draw(st.sampled_from([150, 700, 5_000, 1 << 20])), draw(st.sampled_from([6_000, 20_000, 1 << 20]))


def _check(log: Damaged, cut: tuple[int, int], root: Path, *, hashed: bool, reparse: bool) -> str:
    """Prepares the log; gives what came of it."""
    path = root / ("day_0" if log.packed is None else "day_0.gz")
    path.write_bytes(log.text if log.packed is None else log.packed)
    how = {"vocabulary": HASHED} if hashed else {}
    log_format = CriteoFormat(tokens=log.tokens, has_labels=log.labelled, piece_bytes=cut[0])
    try:
        wanted = settings_for(
            [str(path)],
            root / "out",
            input_format=log_format,
            max_bad_fraction=1.0,
            allow_damaged=True,
            keep_rows=not reparse,
            **how,
        )
        manifest = prepare(wanted)
    except ChorusError as error:
        assert str(error) and "\n" not in str(error)
        assert not (root / "out" / "manifest.json").exists()
        if log.kind in (
            "whole",
            "members",
        ):  # then only a log without a single row, or with another first line, is refused
            assert any(words in str(error) for words in ("no row in any input", "is empty", "its first line has")), (
                error
            )
            if "no row" in str(error):
                assert not plain_log(log.text, tokens=log.tokens, labelled=log.labelled).rows
        return "refused"
    (account,) = manifest.provenance["inputs"]
    bad = quarantine(root / "out")
    assert account["num_lines"] == account["num_rows"] + account["num_quarantined"]
    assert account["num_quarantined"] == len(bad) == sum(account["reasons"].values())
    text, outcome = log.text, "prepared"
    if DAMAGED_GZIP in account["reasons"]:
        assert log.kind in ("cut", "flipped") and account["reasons"][DAMAGED_GZIP] == 1
        outcome = log.kind
        if log.kind == "flipped":  # the text may have changed before that is noticed
            return outcome
        assert bad.pop()["line"] == account["num_lines"]
        text = b"\n".join(text.split(b"\n")[: account["num_lines"] - 1] + [b""])
    plain = plain_log(text, tokens=log.tokens, labelled=log.labelled)
    assert account["num_rows"] == len(plain.rows)
    assert [entry["line"] for entry in bad] == list(plain.bad)
    assert all(entry["part"] == "day_0" and entry["reason"] and entry["found"] for entry in bad)
    arrays = arrays_of(root / "out", "day_0")
    np.testing.assert_array_equal(arrays["dense"], plain_dense(plain.rows))
    if log.labelled:
        np.testing.assert_array_equal(arrays["labels"], plain_labels(plain.rows))
    else:
        assert "labels" not in arrays
    assert arrays["sparse"].shape == (len(plain.rows), 26)
    if not hashed:
        dictionaries = saved_dictionaries(root / "out")
        np.testing.assert_array_equal(arrays["sparse"], plain_ids(plain.rows, dictionaries))
        if log.tokens == "hex":
            assert dictionaries == plain_dictionaries(plain.rows, min_count=2)
    else:
        missing = np.array([[value is None for value in row.values] for row in plain.rows])
        np.testing.assert_array_equal(arrays["sparse"] == 0, missing)
    return outcome


@pytest.fixture
def fast_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost but a power failure's protection."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def _run(log: Damaged, cut: tuple[int, int], *, hashed: bool, reparse: bool) -> None:
    kept = TextFile.__init__.__kwdefaults__["block_bytes"]
    root = Path(tempfile.mkdtemp(prefix="fuzz"))
    TextFile.__init__.__kwdefaults__["block_bytes"] = cut[1]
    try:
        _outcomes.append(_check(log, cut, root, hashed=hashed, reparse=reparse))
    finally:
        TextFile.__init__.__kwdefaults__["block_bytes"] = kept
        shutil.rmtree(root)


_outcomes: list[str] = []
_FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=300, **_FUZZ)
@given(log=damaged_logs(), cut=sizes(), reparse=st.booleans())
def test_any_log_with_hashed_ids(fast_files, log, cut, reparse):
    _run(log, cut, hashed=True, reparse=reparse)


@pytest.mark.slow
@settings(max_examples=1_500, **_FUZZ)
@given(log=damaged_logs(), cut=sizes(), reparse=st.booleans())
def test_many_more_logs_with_hashed_ids(fast_files, log, cut, reparse):
    _run(log, cut, hashed=True, reparse=reparse)


@settings(max_examples=30, **_FUZZ)
@given(log=damaged_logs(), cut=sizes(), reparse=st.booleans())
def test_any_log_with_a_dictionary(fast_files, log, cut, reparse):
    _run(log, cut, hashed=False, reparse=reparse)


def test_the_logs_above_came_to_all_ends():
    """A fuzz whose inputs are all refused would show nothing."""
    print(sorted((outcome, _outcomes.count(outcome)) for outcome in set(_outcomes)))
    if len(_outcomes) < 300:
        pytest.skip("needs the tests above in the same run")
    counts = {outcome: _outcomes.count(outcome) for outcome in sorted(set(_outcomes))}
    assert counts["prepared"] > 120 and counts["refused"] > 15 and counts["cut"] > 1, counts
