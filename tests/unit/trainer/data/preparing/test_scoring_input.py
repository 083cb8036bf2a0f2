"""Raw logs prepared to be scored: the rows and ids of the preparing programs, bad lines kept, or a sentence."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs.errors import ChorusError, ConfigError, DataError
from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import arrays_of, contents, quarantine, rows_and_ids
from tools import prepare_criteo, prepare_table
from trainer import long_work, storage
from trainer.data.manifest import DataManifest
from trainer.data.preparing.preparation_settings import PreparationSettings
from trainer.data.preparing.scoring_input import prepare_scoring_input

SCHEMA = """
[table]
format = "csv"
[label]
column = "click"
[weight]
column = "weight"
[split]
column = "fold"
[split.parts]
a = ["a"]
b = ["b"]
[categorical]
user = {}
[keep.request]
"""


class OneRank:
    """What the preparation needs of a runtime, of a single rank; each beat is told to `on_beat`."""

    is_main = True

    def __init__(self, on_beat: Callable[[str], None] = lambda doing: None) -> None:
        self.said: list[str] = []
        self.beat = on_beat

    def say(self, text: str) -> None:
        self.said.append(text)

    def from_main(self, make: Callable[[], Any]) -> Any:
        return make()

    @contextlib.contextmanager
    def patience(self, doing: str) -> Iterator[None]:
        yield


def score(
    inputs: list[str],
    output: Path,
    *,
    dictionary: Path | str = "",
    root: Path | str = "",
    keep: tuple[str, ...] = (),
    runtime: Any = None,
):
    """What the scoring job asks for; gives the prepared folder."""
    score = SimpleNamespace(input=tuple(inputs), dictionary=str(dictionary), keep=keep)
    config: Any = SimpleNamespace(score=score, data=SimpleNamespace(root=str(root)))
    return Path(prepare_scoring_input(config, folder=str(output), runtime=runtime or OneRank()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    days = [write_log(folder / "logs" / f"day_{day}.tsv", synthetic_lines(80, seed=day)) for day in range(2)]
    flags = ["--numerics", "both", "--vocabulary-from", "day_0", "--min-count", "1"]
    assert prepare_criteo.main(["--input", *days, "--output", str(folder / "days"), *flags]) == 0
    return folder / "days"


@pytest.mark.parametrize(("suffix", "labelled"), [(".tsv", True), (".tsv.gz", True), (".tsv", False), (".gz", False)])
def test_the_same_rows_and_ids_as_by_the_preparing_program(saved, tmp_path, capsys, suffix, labelled):
    lines = [synthetic_lines(40, seed=day, labelled=labelled) for day in (5, 6)]
    days = [write_log(tmp_path / f"day_{9 + n}{suffix}", chosen) for n, chosen in enumerate(lines)]
    flags = ["--numerics", "both", "--dictionary", str(saved), "--output", str(tmp_path / "by_program")]
    assert prepare_criteo.main(["--input", *days, *flags]) == 0
    runtime = OneRank()
    root = score([str(tmp_path / "day_*")], tmp_path / "out", dictionary=saved, runtime=runtime)
    assert root == tmp_path / "out" / "unfinished" / "prepared"
    assert contents(root) == contents(tmp_path / "by_program")
    manifest = DataManifest.read(str(root))
    assert [part.name for part in manifest.parts] == ["day_9", "day_10"]
    assert manifest.parts[0].label_sum == (sum(line[0] == "1" for line in lines[0]) if labelled else None)
    assert manifest.dictionary_sha256 == DataManifest.read(str(saved)).dictionary_sha256
    assert runtime.said[-1].endswith(f"with the ids of {saved}: 80 lines read = 80 rows + 0 bad ones")


def test_data_root_gives_the_ids_where_no_dictionary_is_named(saved, tmp_path):
    day = write_log(tmp_path / "day_9.tsv", synthetic_lines(20, seed=3))
    assert arrays_of(score([day], tmp_path / "out", root=saved), "day_9")["sparse"].shape == (20, 26)


@pytest.mark.parametrize("after_beats", [1, 3, 40])
def test_stopped_and_started_again(saved, tmp_path, monkeypatch, after_beats):
    monkeypatch.setattr(long_work, "_PING_SECONDS", 0.0)
    days = [write_log(tmp_path / f"day_{n}.tsv", synthetic_lines(60, seed=n)) for n in range(3)]
    whole = score(days, tmp_path / "whole", dictionary=saved)
    beats = []

    def stop(doing: str) -> None:
        beats.append(doing)
        if len(beats) == after_beats:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(days, tmp_path / "cut", dictionary=saved, runtime=OneRank(stop))
    assert not (tmp_path / "cut" / "unfinished" / "prepared" / "manifest.json").exists()
    again: list[str] = []
    cut = score(days, tmp_path / "cut", dictionary=saved, runtime=OneRank(again.append))
    assert contents(cut) == contents(whole)
    finished: list[str] = []
    score(days, tmp_path / "cut", dictionary=saved, runtime=OneRank(finished.append))
    assert not finished  # nothing is done twice


def test_bad_lines_are_kept_and_told(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(PreparationSettings.__init__.__kwdefaults__, "max_bad_fraction", 0.5)  # of so small a log
    lines = synthetic_lines(30, seed=3, labelled=False)
    lines[0], lines[7] = "no row", lines[7] + "\tmore"  # also where the very first says nothing about labels
    day = write_log(tmp_path / "day_9.tsv", lines)
    runtime = OneRank()
    root = score([day], tmp_path / "out", dictionary=saved, runtime=runtime)
    assert [entry["line"] for entry in quarantine(tmp_path / "out")] == [1, 8]
    assert quarantine(tmp_path / "out") == quarantine(root)
    assert f"30 lines read = 28 rows + 2 bad ones in {tmp_path / 'out' / 'quarantine.jsonl'}" in runtime.said[-1]


def test_too_many_bad_lines_are_refused_with_what_scoring_can_do(saved, tmp_path):
    day = write_log(tmp_path / "day_9.tsv", [*synthetic_lines(30, seed=3), "no row"])
    with pytest.raises(DataError, match="score.input: 1 of 31 lines are no rows.* prepare the files with --dictionary"):
        score([day], tmp_path / "out", dictionary=saved)


def _spoil(saved: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    manifest = json.loads((saved / "manifest.json").read_text())
    change(manifest["provenance"])
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_refused_dictionaries(saved, tmp_path):
    day = write_log(tmp_path / "day_9.tsv", synthetic_lines(5))
    adopted = _spoil(saved, tmp_path / "adopted", lambda provenance: provenance.pop("input"))
    mlperf = _spoil(saved, tmp_path / "mlperf", lambda found: found["vocabulary"].update(order="first_row"))
    for root, sentence in (
        (tmp_path / "nowhere", "score.dictionary: .*nowhere' is not a finished prepared folder"),
        (adopted, "score.dictionary: .*adopted was adopted: its values are not known"),
        (mlperf, "score.dictionary: .* was prepared with --mlperf"),
    ):
        with pytest.raises(DataError, match=sentence):
            score([day], tmp_path / "out", dictionary=root)
    with pytest.raises(DataError, match="^data.root: .*nowhere' is not a finished"):
        score([day], tmp_path / "out", root=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="score.dictionary: empty, and so is data.root"):
        score([day], tmp_path / "out")
    with pytest.raises(ConfigError, match="--output: score.input is prepared in s3://bucket/out first"):
        prepare_scoring_input(
            SimpleNamespace(  # type: ignore[arg-type]
                score=SimpleNamespace(input=(day,), dictionary=str(saved), keep=()), data=SimpleNamespace(root="")
            ),
            folder="s3://bucket/out",
            runtime=OneRank(),  # type: ignore[arg-type]
        )


def test_refused_inputs(saved, tmp_path):
    labelled = write_log(tmp_path / "day_9.tsv", synthetic_lines(5))
    bare = write_log(tmp_path / "day_10.tsv", synthetic_lines(5, labelled=False))
    other = write_log(tmp_path / "shop.csv", ["user,click", "a,1"])
    again = write_log(tmp_path / "more" / "day_9.tsv", synthetic_lines(5))
    strange = write_log(tmp_path / "day-6.tsv", synthetic_lines(5))
    broken = tmp_path / "day_3.tsv.gz"
    broken.write_bytes(b"no gzip")
    empty, empty_gz = tmp_path / "day_5.tsv", tmp_path / "day_5.tsv.gz"
    empty.write_bytes(b"")
    empty_gz.write_bytes(gzip.compress(b""))
    for inputs, sentence in (
        ([str(tmp_path / "day_7.tsv")], r"score.input: .*day_7.tsv: no such file; correct the path"),
        ([str(tmp_path / "week_*")], r"score.input: no file matches '.*week_\*'"),
        ([labelled, bare], r"score.input: .*day_9.tsv has labels and .*day_10.tsv has none; score them in two jobs"),
        ([other], r"score.input: .*shop.csv does not begin with lines of 40 fields"),
        ([labelled, again], r"score.input: inputs: several files would make a part 'day_9'"),
        ([str(broken)], r"score.input: .*day_3.tsv.gz does not begin"),
        ([labelled, str(empty)], r"score.input: .*day_5.tsv is empty; fetch it again, or leave it out$"),
        ([str(empty_gz)], r"score.input: .*day_5.tsv.gz is empty; fetch it again, or leave it out$"),
        ([strange], r"score.input: .*: 'day-6' cannot name a part \(.* and _ only\); rename the file$"),
    ):
        with pytest.raises(DataError, match=sentence):
            score(inputs, tmp_path / "out", dictionary=saved)
    assert score([labelled], tmp_path / "out", dictionary=saved)  # what refused inputs leave is in nobody's way


def test_a_damaged_file_is_refused_and_goes_on_once_fetched_again(saved, tmp_path):
    cut = tmp_path / "day_4.tsv.gz"
    whole = gzip.compress(("\n".join(synthetic_lines(3_000)) + "\n").encode())
    cut.write_bytes(whole[:-50_000])
    day = write_log(tmp_path / "day_3.tsv", synthetic_lines(5))
    sentence = r"score.input: .*day_4.tsv.gz: the gzip file is damaged or cut off here, after [\d,]+ rows"
    with pytest.raises(DataError, match=sentence):
        score([day, str(cut)], tmp_path / "out", dictionary=saved)
    cut.write_bytes(whole)
    root = score([day, str(cut)], tmp_path / "out", dictionary=saved)
    assert [part.num_rows for part in DataManifest.read(str(root)).parts] == [5, 3_000]


def stopped(inputs: list[str], output: Path, *, dictionary: Path) -> None:
    """A job that ends while it prepares."""
    beats: list[str] = []

    def stop(doing: str) -> None:
        beats.append(doing)
        if len(beats) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(inputs, output, dictionary=dictionary, runtime=OneRank(stop))


def test_other_input_after_a_stop_asks_for_another_output(saved, tmp_path):
    days = [write_log(tmp_path / f"day_{day}.tsv", synthetic_lines(60, seed=day)) for day in (7, 8)]
    stopped([days[0]], tmp_path / "out", dictionary=saved)
    remedy = r"; give the same as before to go on, or name another --output$"
    with pytest.raises(DataError, match=f"^score.input: .* not ..day_8..{remedy}"):
        score([days[1]], tmp_path / "out", dictionary=saved)
    score([days[0]], tmp_path / "out", dictionary=saved)
    write_log(Path(days[0]), synthetic_lines(61, seed=9))
    with pytest.raises(DataError, match=f"^score.input: .*: holds data prepared from other input files{remedy}"):
        score([days[0]], tmp_path / "out", dictionary=saved)
    score([days[0]], tmp_path / "other", dictionary=saved)


def test_a_disk_without_room_is_told_before_anything_is_written(saved, tmp_path, monkeypatch):
    day = write_log(tmp_path / "day_9.tsv.gz", synthetic_lines(500))
    monkeypatch.setattr(storage, "free_bytes", lambda folder: 100_000)
    with pytest.raises(ChorusError, match=r"holds about 500 rows, which take about 106,000 bytes .* 100,000 are free"):
        score([day], tmp_path / "out", dictionary=saved)
    assert not (tmp_path / "out" / "unfinished" / "prepared").exists()


@pytest.fixture
def shop(tmp_path) -> Path:
    """Prepared rows of a table with a column that passes through."""
    (tmp_path / "shop.toml").write_text(SCHEMA)
    (tmp_path / "old.csv").write_text(
        "request,click,weight,fold,user\nr1,1,1,a,u\nr2,0,1,b,u\nr3,1,1,a,v\nr4,0,1,b,v\n"
    )
    words = ["--schema", str(tmp_path / "shop.toml"), "--input", str(tmp_path / "old.csv"), "--vocabulary-from", "a"]
    assert prepare_table.main([*words, "--output", str(tmp_path / "shop"), "--min-count", "1"]) == 0
    return tmp_path / "shop"


def test_tables_come_with_what_passes_through(shop, tmp_path):
    """As their schema says, but a part a file; new rows need no label, no weight and no column of parts."""
    (tmp_path / "new.csv").write_text("user,request\nv,ä\nu,\nw,z\n")
    root = score([str(tmp_path / "new.csv")], tmp_path / "out", dictionary=shop, keep=("request",))
    found = arrays_of(root, "new")
    assert found["request_kept"][:, 0].tolist() == ["ä".encode(), b"", b"z"]
    assert found["sparse"][:, 0].tolist() == [3, 2, 1]
    assert sorted(found) == ["request_kept", "sparse"]


def test_a_table_may_lack_what_score_keep_does_not_name(shop, tmp_path):
    with_it, without = tmp_path / "with.csv", tmp_path / "without.csv"
    with_it.write_text("user,request\nv,a\n")
    without.write_text("user\nu\nw\n")
    files = [str(with_it), str(without)]
    for name, column in (("request", "request"), ("weight", "weight")):
        with pytest.raises(DataError, match=rf"^score.keep: '{name}': .*without.csv has no column '{column}'; take"):
            score(files, tmp_path / "out", dictionary=shop, keep=("user", name))
    root = score(files, tmp_path / "out", dictionary=shop, keep=("user",))
    assert [sorted(arrays_of(root, part)) for part in ("with", "without")] == [["sparse"], ["sparse"]]
    assert arrays_of(root, "without")["sparse"][:, 0].tolist() == [2, 1]


def test_ids_are_those_of_the_dictionary(saved, tmp_path):
    """Values of day_1 that day_0 does not have are rare ones, whatever the new day holds."""
    day = write_log(tmp_path / "day_9.tsv", synthetic_lines(80, seed=1))
    root = score([day], tmp_path / "out", dictionary=saved)
    before, now = arrays_of(saved, "day_1"), arrays_of(root, "day_9")
    assert before.keys() == now.keys() and "numeric_ids" in now
    for role, array in before.items():
        np.testing.assert_array_equal(array, now[role])
    assert set(rows_and_ids(root)) >= {f"dictionary/C{number}.parquet" for number in range(1, 27)}
