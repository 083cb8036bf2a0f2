"""What a preparation must not do to files that are not its own, nor take for its own what is not."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ChorusError, ConfigError, DataError
from tests.support.click_log import synthetic_lines, write_log
from tests.support.preparing import MLPERF_RULE, arrays_of, contents, interrupt_in, rows_and_ids, settings_for
from trainer.data.manifest import DataManifest
from trainer.data.preparing.adoption import adopt
from trainer.data.preparing.criteo_format import CriteoFormat
from trainer.data.preparing.part_files import PartFiles
from trainer.data.preparing.preparation import prepare
from trainer.data.preparing.preparation_settings import VocabularyChoice
from trainer.data.preparing.splits import Split
from trainer.data.synthetic.log_writing import CEILING_NAME, LogOrder
from trainer.data.synthetic.log_writing import write_log as write_synthetic_log
from trainer.data.synthetic.teacher import Teacher


@pytest.fixture
def days(tmp_path: Path) -> list[str]:
    return [write_log(tmp_path / "logs" / f"day_{day}.tsv", synthetic_lines(60, seed=day)) for day in range(2)]


def stop_in(stage: str, settings) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, on_progress=interrupt_in(stage))


def test_bags_are_written_anew_where_an_input_changed(days, tmp_path):
    how = {
        "input_format": CriteoFormat(numerics="raw"),
        "vocabulary": VocabularyChoice(rule=MLPERF_RULE),
        "split": Split.last_in_halves(days),
        "bag_sizes": (3,) + (1,) * 25,
        "materialise_bags": True,
    }
    stop_in("seal", settings_for(days, tmp_path / "out", **how))
    assert (tmp_path / "out" / "day_0_C1.npy").exists()
    write_log(Path(days[0]), synthetic_lines(60, seed=9))
    prepare(settings_for(days, tmp_path / "out", **how))
    for part in ("day_0", "day_1_val", "day_1_test"):
        arrays = arrays_of(tmp_path / "out", part)
        np.testing.assert_array_equal(arrays["C1"][:, 0], arrays["sparse"][:, 0])


@pytest.mark.parametrize("gone", ["day_0_sparse.npy", "day_1_labels.npy"])
def test_rows_that_were_written_and_are_gone_are_not_taken_for_zeros(days, tmp_path, gone):
    settings = settings_for(days, tmp_path / "out")
    stop_in("seal", settings)
    (tmp_path / "out" / gone).unlink()
    with pytest.raises(DataError, match=f"{gone}: rows were written to it, and it is gone"):
        prepare(settings)
    prepare(settings, overwrite=True)
    assert DataManifest.read(str(tmp_path / "out")).parts[0].num_rows == 60


def test_a_dictionary_that_is_gone_is_made_again(days, tmp_path):
    settings = settings_for(days, tmp_path / "out")
    prepare(settings_for(days, tmp_path / "whole"))
    stop_in("write", settings)
    (tmp_path / "out" / "dictionary" / "C5.parquet").unlink()
    prepare(settings)
    assert rows_and_ids(tmp_path / "out") == rows_and_ids(tmp_path / "whole")


def test_a_folder_that_was_moved_is_gone_on_with(days, tmp_path):
    prepare(settings_for(days, tmp_path / "whole"))
    stop_in("write", settings_for(days, tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "moved")
    prepare(settings_for(days, tmp_path / "moved"))
    assert contents(tmp_path / "moved") == contents(tmp_path / "whole")


def test_two_parts_never_share_a_file(tmp_path):
    layout = CriteoFormat().layout
    layout = type(layout)(dense=(), ids=(), value_bits=64, bags=("b_c", "c"))
    with pytest.raises(DataError, match="parts 'a' and 'a_b' would share this file"):
        PartFiles(root=str(tmp_path), layout=layout, names=("a", "a_b")).make([1, 1], [[0, 0], [0, 0]], mode="make")


def test_a_dictionary_that_is_not_its_manifests(days, tmp_path):
    prepare(settings_for(days[:1], tmp_path / "old"))
    saved = VocabularyChoice(kind="saved", saved=str(tmp_path / "old"))
    prepare(settings_for(days[1:], tmp_path / "new", vocabulary=saved))
    shutil.copy(tmp_path / "old" / "dictionary" / "C4.parquet", tmp_path / "old" / "dictionary" / "C5.parquet")
    with pytest.raises(DataError, match="not those of its manifest|outside its table"):
        prepare(settings_for(days[1:], tmp_path / "other", vocabulary=saved))


def test_the_dictionary_given_is_not_deleted(days, tmp_path):
    prepare(settings_for(days[:1], tmp_path / "old"))
    before = contents(tmp_path / "old")
    with pytest.raises(DataError, match="is the output folder too"):
        saved = VocabularyChoice(kind="saved", saved=str(tmp_path / "old"))
        prepare(settings_for(days[1:], tmp_path / "logs" / ".." / "old", vocabulary=saved), overwrite=True)
    assert contents(tmp_path / "old") == before


def test_adopted_files_are_not_deleted(days, tmp_path):
    prepare(settings_for(days, tmp_path / "out"))
    (tmp_path / "out" / "manifest.json").unlink()
    shutil.rmtree(tmp_path / "out" / "dictionary")
    adopt(str(tmp_path / "out"))
    before = contents(tmp_path / "out")
    with pytest.raises(DataError, match="holds adopted files"):
        prepare(settings_for(days[:1], tmp_path / "out"), overwrite=True)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [({"output": ""}, "output: is empty"), ({"memory_gb": float("inf")}, "memory_gb: inf")],
)
def test_settings_of_no_use(days, tmp_path, changed, sentence):
    with pytest.raises(DataError, match=sentence):
        settings_for(days, **{"output": tmp_path / "out", **changed})


def test_ids_of_an_mlperf_folder_are_not_for_new_days(days, tmp_path):
    mlperf = {"input_format": CriteoFormat(numerics="raw"), "split": Split.last_in_halves(days[:1])}
    prepare(settings_for(days[:1], tmp_path / "old", vocabulary=VocabularyChoice(rule=MLPERF_RULE), **mlperf))
    with pytest.raises(DataError, match="was prepared with --mlperf, where every day is in the dictionary"):
        settings_for(days[1:], tmp_path / "new", vocabulary=VocabularyChoice(kind="saved", saved=str(tmp_path / "old")))


def test_a_process_without_a_file_ends_with_the_others(days, tmp_path):
    """The leader may be done, its scratch files gone, before the other has looked once."""
    found: list[object] = []

    def share(index: int) -> None:
        found.append(prepare(settings_for(days[:1], tmp_path / "out", shard=(index, 2))))

    other = threading.Thread(target=share, args=(1,), daemon=True)
    other.start()
    share(0)
    other.join(timeout=30)
    assert not other.is_alive() and len(found) == 2 and found[0] == found[1]


def test_other_numbers_of_processes_keep_away(days, tmp_path):
    settings = settings_for(days, tmp_path / "out")

    def second(now: object) -> None:
        with pytest.raises(DataError, match="another process prepares there right now"):
            prepare(settings_for(days, tmp_path / "out", shard=(1, 2)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(settings, on_progress=second)


def test_a_cut_gzip_that_is_allowed_is_no_bad_line(tmp_path):
    path = Path(write_log(tmp_path / "day_0.gz", synthetic_lines(300)))
    path.write_bytes(path.read_bytes()[:-3_000])
    with pytest.raises(DataError, match="damaged or cut off here"):
        prepare(settings_for([str(path)], tmp_path / "out"))
    manifest = prepare(settings_for([str(path)], tmp_path / "out", allow_damaged=True))
    (account,) = manifest.provenance["inputs"]
    assert account["num_quarantined"] == 1 and 0 < account["num_rows"] < 300


def test_a_cut_gzip_without_any_row_is_no_log(tmp_path):
    (tmp_path / "day_0.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="no row in any input"):
        prepare(settings_for([str(tmp_path / "day_0.gz")], tmp_path / "out", allow_damaged=True))


def test_a_log_of_ones_own_is_not_replaced_by_a_synthetic_one(tmp_path):
    own = tmp_path / "day_0.tsv.gz"
    own.write_bytes(b"mine")
    order = LogOrder(teacher=Teacher(1, 50), num_days=1, rows_per_day=20, compression="gz")
    with pytest.raises(ConfigError, match="day_0.tsv.gz, which was not made here"):
        write_synthetic_log(order, output=str(tmp_path), num_workers=1)
    assert own.read_bytes() == b"mine"
    own.unlink()
    write_synthetic_log(order, output=str(tmp_path), num_workers=1)
    assert (tmp_path / CEILING_NAME).exists()


def test_what_the_disk_says(days, tmp_path, monkeypatch):
    def denied(*arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr("trainer.data.preparing.preparation.account_for", denied)
    with pytest.raises(ChorusError, match="^somewhere: Permission denied; correct it and run again"):
        prepare(settings_for(days, tmp_path / "out"))
