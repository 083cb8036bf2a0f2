"""Reading a run and writing it again."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import loader
from configs.ensemble_schema import FeatureOverride, Member, Merge, TableGroup
from configs.errors import ConfigError
from configs.interval_schema import Until
from configs.key_types import field_types
from configs.loader import config_text, dump_run, read_run
from configs.schema import Data, Run, RunConfig
from configs.section import Section
from configs.training_schema import Train
from tests.unit.configs import archs
from tests.unit.configs.reading import ONE_MEMBER, read, refusal


def test_defaults_then_file_then_overrides() -> None:
    config = read(ONE_MEMBER + "[run]\nseed = 2\nname = 'a'\n", "--run.seed=3", "--run.seed=4")
    assert config.run == Run(seed=4, name="a")
    assert config.train == Train()


def test_the_architecture_is_an_object_of_its_own_class() -> None:
    config = read("[members.x]\narch = {kind = 'cross', num_layers = 2}\n[members.y]\narch = {kind = 'mlp'}")
    assert config.members["x"].arch == archs.CrossConfig(kind="cross", num_layers=2)
    assert config.members["y"].arch == archs.MlpConfig(kind="mlp")


def test_a_whole_member_from_the_command_line() -> None:
    inline = read("", '--members.tiny={tables = "own", dim = 8, arch = {kind = "mlp", hidden = [8]}}')
    spelled = read(
        "",
        "--members.tiny.arch.kind=mlp",
        "--members.tiny.arch.hidden=[8]",
        "--members.tiny.tables=own",
        "--members.tiny.dim=8",
    )
    expected = Member(tables="own", dim=8, arch=archs.MlpConfig(kind="mlp", hidden=(8,)))
    assert inline.members == spelled.members == {"tiny": expected}


def test_a_whole_number_is_a_number_and_keeps_its_type() -> None:
    lr = read(ONE_MEMBER + "[dense]\nlr = 1").dense.lr
    assert lr == 1.0
    assert isinstance(lr, float)


def test_lists_become_tuples() -> None:
    assert read(ONE_MEMBER + "[score]\nparts = ['a', 'b']").score.parts == ("a", "b")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[run]\nseed = = 3", "run.toml: not TOML at line 2, column 8: Invalid value; correct that line"),
        ("x = [1,\n2", "run.toml: not TOML at line 2, column 2: Unclosed array; correct that line"),
        ("x = ", "run.toml: not TOML at line 1, column 5: Invalid value; correct that line"),
        (
            "[run]\nseed = 1\nseed = 2",
            "run.toml: not TOML at line 3, column 9: Cannot overwrite a value; correct that line",
        ),
    ],
)
def test_bad_toml_names_line_and_column(text: str, sentence: str) -> None:
    assert refusal(text) == sentence


def test_a_missing_file_lists_those_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loader, "__file__", str(tmp_path / "configs" / "loader.py"))
    with pytest.raises(ConfigError, match=r"^no\.toml: no such file$"):
        config_text("no.toml")
    (tmp_path / "configs").mkdir()
    for name in ("b.toml", "a.toml", "c.txt"):
        (tmp_path / "configs" / name).touch()
    with pytest.raises(ConfigError, match=r"^no\.toml: no such file; there are configs/a\.toml, configs/b\.toml$"):
        config_text("no.toml")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\); give a TOML file$"):
        config_text(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b"x = '\xe9'")
    with pytest.raises(ConfigError, match=r"latin\.toml: not UTF-8 text at byte 5; save it as UTF-8$"):
        config_text(str(tmp_path / "latin.toml"))


def test_text_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[run]\nname = 'é'\n", encoding="utf-8")
    assert config_text(str(tmp_path / "x.toml")) == "[run]\nname = 'é'\n"


def test_dump_leaves_out_what_is_not_given() -> None:
    text = dump_run(RunConfig(members={"deep": Member(arch=archs.CrossConfig(kind="cross"))}))
    assert "low_rank_dim" not in text
    assert "features" not in text
    assert '[members.deep.arch]\nkind = "cross"\nnum_layers = 3\nstructure = "parallel"\n' in text


_NAMES = st.text(alphabet="abc_09", min_size=1, max_size=6)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_POSITIVE = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
_SEEDS = st.integers(min_value=0, max_value=2**63 - 1)
_TEXTS = st.text(max_size=8)
_TOWERS = st.builds(archs.Tower, widths=st.lists(_FLOATS, max_size=3).map(tuple), label=st.none() | _TEXTS)
_ARCHS = (
    st.builds(archs.MlpConfig, kind=st.just("mlp"), hidden=st.lists(_SEEDS, min_size=1).map(tuple), dropout=_FLOATS)
    | st.builds(
        archs.CrossConfig,
        kind=st.just("cross"),
        num_layers=st.integers(1, 9),
        low_rank_dim=st.none() | st.integers(1, 512),
        structure=st.sampled_from(["stacked", "parallel"]),
    )
    | st.builds(
        archs.NestedConfig,
        kind=st.just("nested"),
        tower=_TOWERS,
        towers=st.dictionaries(_TEXTS, _TOWERS, max_size=2),
        rates=st.dictionaries(_TEXTS, _FLOATS, max_size=2),
        pair=st.tuples(_SEEDS, _FLOATS),
        exact=st.booleans(),
        width=_SEEDS | _TEXTS,
    )
)
_GROUPS = st.builds(
    TableGroup,
    dim=st.integers(1, 99).map(lambda quarter: 4 * quarter),
    lr=_POSITIVE,
    init_bound=st.none() | _POSITIVE,
    seed=st.none() | _SEEDS,
    placement=st.sampled_from(["auto", "row_wise"]),
    features=st.dictionaries(
        _TEXTS, st.builds(FeatureOverride, placement=st.sampled_from([None, "table_wise"])), max_size=2
    ),
)


@st.composite
def _ensembles(draw: st.DrawFn) -> dict[str, Any]:
    """Members, and a table group for each name that they use and for some of those that are always there."""
    names = [*draw(st.lists(_NAMES, max_size=2, unique=True)), "shared", "own"]
    member = st.builds(Member, arch=_ARCHS, tables=st.sampled_from(names), lr=st.none() | _POSITIVE)
    members = draw(st.dictionaries(_NAMES.map(lambda name: f"m{name}"), member, min_size=1, max_size=3))
    used = {member.tables for member in members.values()} - {"shared", "own"}
    written = sorted(used) + draw(st.lists(st.sampled_from(["shared", "own"]), unique=True))
    return {"members": members, "tables": {name: draw(_GROUPS) for name in written}}


_RUNS = st.builds(
    lambda ensemble, **sections: RunConfig(**ensemble, **sections),
    ensemble=_ensembles(),
    run=st.builds(Run, name=_NAMES, folder=_TEXTS, seed=_SEEDS),
    data=st.builds(Data, root=st.just("x"), train=st.lists(_TEXTS, min_size=1, max_size=3, unique=True).map(tuple)),
    train=st.builds(
        Train,
        batch_size=st.integers(1, 2**40),
        until=st.builds(Until, steps=st.integers(1, 9)) | st.builds(Until, epochs=st.integers(1, 9)),
    ),
    merge=st.builds(Merge, rule=st.sampled_from(["mean_logit", "median"])),
)


@settings(max_examples=150, deadline=None)
@given(config=_RUNS)
def test_a_dumped_run_reads_as_an_equal_object(config: RunConfig) -> None:
    again = read_run(dump_run(config), source="run.toml", resolve_arch=archs.resolve, arch_kinds=archs.KINDS)
    assert again == config
    assert dump_run(again) == dump_run(config)


def sections_below(section: type[Section]) -> typing.Iterator[type[Section]]:
    """The section and every one that its keys hold, doubled where it is held twice."""
    yield section
    for annotation in field_types(section).values():
        for kind in (annotation, *typing.get_args(annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from sections_below(kind)


@pytest.mark.parametrize("section", sorted(set(sections_below(RunConfig)), key=str))
def test_what_a_dump_leaves_out_is_the_default(section: type[Section]) -> None:
    """None and an empty mapping are left out, so a key that may hold one must have it as its default."""
    for field in dataclasses.fields(section):
        annotation: Any = field_types(section)[field.name]
        if isinstance(annotation, types.UnionType) and type(None) in typing.get_args(annotation):
            assert field.default is None, f"{section.__name__}.{field.name}"
        if typing.get_origin(annotation) is dict:
            assert field.default_factory is dict, f"{section.__name__}.{field.name}"
