"""What is asked, read from words; what is wrong with it, said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import ChorusError
from configs.loader import dump_hardware
from tests.support.planned_cases import RUN, machine
from tools.plan_capacity import _parser
from trainer.planning.request import Request, read_request

OUTLINE = "num_rows = 1000\ndense = 1\n[features.C1]\nrows = 400\nmean_ids = 3.0\n[features.C2]\nrows = 20\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text(RUN)
    (tmp_path / "outline.toml").write_text(OUTLINE)
    (tmp_path / "box.toml").write_text(dump_hardware(machine(64)))
    (tmp_path / "big.toml").write_text(dump_hardware(machine(128, ranks=8, name="big")))
    return tmp_path


def read(files: Path, *words: str, hardware: str | None = "box.toml") -> Request:
    where = [] if hardware is None else ["--hardware", ",".join(str(files / one) for one in hardware.split(","))]
    given = ["--config", str(files / "run.toml"), "--data", str(files / "outline.toml"), *where, *words]
    options, rest = _parser().parse_known_args(given)
    return read_request(vars(options), rest, command="it")


def test_the_least_that_is_asked(files):
    request = read(files)
    assert [one.name for one in request.asked.hardware] == ["box"]
    assert request.asked.purposes == ("train",) and request.asked.config == "planned"
    assert request.sizes.climbs and not request.sizes.ranks and request.sizes.most == 1024
    assert request.growth_rate is request.request_rows is request.quality is None
    (only,) = request.variants
    assert (only.data.train_rows, only.data.score_rows, only.data.traffic["C1"].mean_ids) == (1000, 1000, 3.0)


def test_everything_that_may_be_asked(files):
    request = read(
        files,
        *("--ranks", "8,4", "--purpose", "both", "--rows", "77", "--epoch-hours", "2", "--max-plans", "9"),
        *("--growth", "5%/month", "--serving", "--request-rows", "12", "--timeout", "30", "--train.batch_size=64"),
        *("--json", str(files / "a.json"), "--csv", str(files / "a.csv")),
    )
    assert request.sizes.ranks == (4, 8) and not request.sizes.climbs
    assert request.asked.purposes == ("train", "score") and request.asked.epoch_hours == 2
    assert request.budget.max_plans == 9 and request.budget.seconds == 30
    assert request.growth_rate == 0.05 and request.request_rows == 12
    assert request.variants[0].config.train.batch_size == 64
    assert request.variants[0].data.train_rows == request.variants[0].data.score_rows == 77
    assert (request.files.json, request.files.html) == (str(files / "a.json"), None)
    assert read(files, "--ranks", "4", "--search").sizes.climbs


def test_sweeps_take_ranks_and_hardware_too(files):
    boxes = f"hardware={files / 'box.toml'},{files / 'big.toml'}"
    request = read(files, "--sweep", "members.solo.copies=1,2", "--sweep", "ranks=4,8", "--sweep", boxes, hardware=None)
    assert [one.name for one in request.asked.hardware] == ["box", "big"]
    assert request.sizes.ranks == (4, 8)
    assert request.asked.swept == {"members.solo.copies": [1, 2], "hardware": ["box", "big"], "ranks": (4, 8)}
    assert [one.swept for one in request.variants] == [{"members.solo.copies": 1}, {"members.solo.copies": 2}]


def test_shipped_machines_go_by_their_bare_names(files):
    request = read(files, "--hardware", "h100_80gb_8,a100_80gb_8", hardware=None)
    assert [one.host.ranks for one in request.asked.hardware] == [8, 8]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--ranks", "0"), "--ranks: 0 is no number of ranks; give 1 or more"),
        (("--ranks", "-4"), "--ranks: -4"),
        (("--ranks", "6"), "6 ranks of box do not fill hosts of 4; take 4 or 8"),
        (("--ranks", "four"), "--ranks: 'four' is not a whole number"),
        (("--ranks", "1.5"), "--ranks: '1.5'"),
        (("--ranks", "4", "--sweep", "ranks=8"), "--sweep: ranks is given by --ranks, too"),
        (("--hardware", "none"), "--hardware: no 'none' in configs/hardware; give a path, or one of "),
        (("--hardware", "h100_80gb_8,"), "--hardware: not given"),
        (("--hardware", "h100_80gb_8,h100_80gb_8"), "a machine called 'h100_80gb_8' is there already"),
        (("--hardware", "./none.toml"), "./none.toml: no such file; there are configs/hardware"),
        (("--epoch-hours", "0"), "--epoch-hours: 0.0 must be above zero"),
        (("--epoch-hours", "nan"), "--epoch-hours: nan must be above zero"),
        (("--max-plans", "-1"), "--max-plans: -1 must be above zero"),
        (("--rows", "0"), "--rows: 0 must be above zero"),
        (("--growth", "5"), "--growth: '5' is not of the form"),
        (("--serving", "--request-rows", "0"), "--request-rows: 0 is no request"),
        (("--quality", "none.json"), "--quality: no file 'none.json'"),
        (("--json", "nowhere/a.json"), "--json: the folder 'nowhere' is not there"),
        (("--sweep", "tables.own.dim=3"), "--sweep: tables.own.dim=3: "),
        (("--train.batch=4",), "train.batch"),
        (("--rank=4",), "--rank: no such flag"),
        (("words",), "words: neither a flag"),
        (("--config", "none.toml"), "none.toml: no such file"),
        (("--data", "none.json"), "--data: no file 'none.json'"),
        (("--data", "none"), "--data: 'none' is no prepared folder"),
    ],
)
def test_what_is_wrong_is_said(files, words, told):
    with pytest.raises(ChorusError) as refused:
        read(files, *words)
    assert told in str(refused.value)
    assert refused.value.exit_code == 2


def test_no_hardware_is_refused(files):
    with pytest.raises(ChorusError, match=r"--hardware: not given; name a hardware file, or one of .*h100_80gb_8"):
        read(files, hardware=None)


def test_an_impossible_machine_is_refused(files):
    text = (files / "box.toml").read_text().replace("ranks = 4", "ranks = 0")
    (files / "box.toml").write_text(text)
    with pytest.raises(ChorusError, match=r"(?s)box.toml.*host.ranks: 0 must be above zero"):
        read(files)


def test_a_device_that_the_machine_has_not_is_refused(files):
    with pytest.raises(ChorusError, match=r'run.device: "cpu", but box of --hardware is cuda; add --run.device=auto'):
        read(files, "--run.device=cpu")
    assert read(files, "--run.device=cuda").asked.hardware[0].device == "cuda"


def test_files_are_tried_before_anything_is_planned(files):
    path = str(files / ("x" * 250 + ".json"))  # beside which no file of a longer name can be made
    with pytest.raises(ChorusError, match=r"--json: .* cannot be written \(File name too long\); name another"):
        read(files, "--json", path)
    (files / "old.json").write_text("old")
    before = sorted(files.iterdir())
    read(files, "--json", str(files / "old.json"), "--html", str(files / "new.html"))
    assert sorted(files.iterdir()) == before and (files / "old.json").read_text() == "old"
