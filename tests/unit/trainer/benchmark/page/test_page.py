"""The page: its sections, what of it is left out, its charts, and the same figures for programs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from configs.benchmark_schema import Published
from tests.support.benchmarks import made_results
from trainer.analysis.intervals import Estimate
from trainer.benchmark.comparisons import comparisons
from trainer.benchmark.fitted import fitted_merges
from trainer.benchmark.page import page as page_file
from trainer.benchmark.page.look import strategy_marks
from trainer.benchmark.page.page import write_page
from trainer.benchmark.page.wall_chart import wall_chart
from trainer.benchmark.points import Figures, points
from trainer.benchmark.report import Report
from trainer.benchmark.stability import stabilities

ALWAYS = ["How it was made", "Single members", "Merged"]


@pytest.fixture(scope="module")
def whole() -> Report:
    results = made_results(
        noises={"deep": 1.0, "cross": 1.2, "dot": 1.5, "wide": 1.1},
        fitted=("kinds",),
        published={"deep": Published(auc=0.70, log_loss_nats=0.6, parameters=6_000, runs=5)},
        published_source="A table in a paper.",
    )
    baseline = {"all": next(column.logits_N for column in results.columns if column.member == "dot").astype("float64")}
    return Report(
        results=results,
        points=points(results),
        num_trainings=12,
        machine="a machine, 2 cores",
        baselines={"gradient boosting": Figures(auc=0.71, log_loss_nats=0.61, ne=0.9, calibration=1.0)},
        comparisons=comparisons(results, baselines={"gradient boosting": baseline}),
        fitted=fitted_merges(results),
        stability=stabilities(results),
        speeds={
            ("kinds", member): rate for member, rate in {"deep": 1e5, "cross": 2e5, "dot": 4e5, "wide": 4e5}.items()
        },
    )


@pytest.fixture(scope="module")
def written(whole: Report, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("docs")
    return folder, write_page(whole, name="made", given="my/made.toml", folder=str(folder))


def titles(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, flags=re.MULTILINE)


def test_all_that_is_said_to_be_written_is_there_and_shown(written: tuple[Path, list[str]]) -> None:
    folder, paths = written
    assert all(Path(path).is_file() for path in paths)
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (folder / "made.md").read_text())
    assert {str(folder / path) for path in shown} == set(paths[2:])
    assert [Path(path).name for path in paths] == [
        "made.md",
        "made.json",
        *(f"made_{kind}.svg" for kind in ("members", "curve", "wall", "stability")),
    ]
    assert titles((folder / "made.md").read_text()) == [
        *ALWAYS,
        "Number of merged predictions",
        "Quality against cost",
        "Fitted merges",
        "Paired comparisons",
        "How steady predictions are",
        "What these figures do not show",
    ]


def test_the_command_names_the_benchmark_as_it_was_named(written: tuple[Path, list[str]]) -> None:
    assert "python tools/run_benchmark.py my/made.toml --source DIR" in (written[0] / "made.md").read_text()


def test_charts_are_small_and_name_what_they_show(written: tuple[Path, list[str]]) -> None:
    folder, paths = written
    words = {}
    for path in paths[2:]:
        assert Path(path).stat().st_size < 150_000
        words[Path(path).stem] = " ".join(
            "".join(node.itertext()) for node in ElementTree.parse(path).iter() if node.tag.endswith("text")
        )
    for wanted in (
        "multiply-adds of the forward pass, per row",
        "log loss, nats",
        "AUC",
        "one model",
        "K kinds, K = 4",
    ):
        assert wanted in words["made_wall"]
    for wanted in ("deep", "cross", "dot", "wide", "published", "95 % interval over groups"):
        assert wanted in words["made_members"]
    assert "number of merged predictions, K" in words["made_curve"]


def test_a_point_far_off_does_not_press_the_others_together_on_the_wall(whole: Report) -> None:
    far = whole.of("kinds")[-1]
    spoilt = replace(far, groups=tuple(replace(group, log_loss_nats=9.0) for group in far.groups))
    report = replace(whole, points=[spoilt if point is far else point for point in whole.points])
    marks = strategy_marks({name: strategy.family for name, strategy in report.benchmark.strategies.items()})
    panel = wall_chart(report, marks=marks).axes[0]
    assert panel.get_ylim()[1] < 1.0
    assert f"K kinds, K = {far.size}: 9.000, off the panel" in [text.get_text() for text in panel.texts]


def test_what_was_not_measured_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_file, "save", lambda _, stem: f"{stem}.svg")  # charts have tests of their own
    results = made_results(groups=1)
    only = replace(results.benchmark, strategies={"single": results.benchmark.strategies["single"]}, headline="single")
    results = replace(results, benchmark=only)
    report = Report(results=results, points=points(results), num_trainings=3, machine="a machine")
    text = Path(write_page(report, name="made", given="my/made.toml", folder=str(tmp_path))[0]).read_text()
    assert titles(text) == [*ALWAYS, "Quality against cost", "What these figures do not show"]
    assert "±" not in text.split("## Quality against cost")[1].split("## What")[0]
    assert "rows/s" not in text.lower()
    assert "published" not in text.split("![")[0].lower()
    assert "nan" not in text


def test_its_figures_for_programs_are_the_reports(whole: Report, written: tuple[Path, list[str]]) -> None:
    found = json.loads((written[0] / "made.json").read_text())
    assert (found["name"], found["num_trainings"], found["groups"]) == ("made", 12, 3)
    assert len(found["points"]) == len(whole.points)
    for plain, point in zip(found["points"], whole.points, strict=True):
        assert (plain["strategy"], plain["size"]) == (point.strategy, point.size)
        assert plain["auc"]["low"] == pytest.approx(point.interval("auc").low, rel=1e-6)
        assert plain["minus_single"]["auc"]["value"] == pytest.approx(
            point.gain(whole.single, "auc").value, rel=1e-5, abs=1e-9
        )
        assert [group["log_loss_nats"] for group in plain["groups"]] == pytest.approx(
            [group.log_loss_nats for group in point.groups], rel=1e-6
        )
    for plain, one in zip(found["comparisons"], whole.comparisons, strict=True):
        assert plain["against"] == one.against
        assert plain["auc"]["high"] == pytest.approx(one.auc.interval().high, rel=1e-5, abs=1e-9)
    assert [one["rule"] for one in found["fitted"]] == [one.rule for one in whole.fitted]
    assert {one["member"]: one["rows_per_second"] for one in found["singles"]}["cross"] == 2e5
    assert found["stability"][0]["mean_change"]["value"] == pytest.approx(
        whole.stability[0].mean_change.value, rel=1e-6
    )
    assert found["baselines"]["gradient boosting"]["auc"] == 0.71
    assert "NaN" not in (written[0] / "made.json").read_text()
    assert str(written[0]) not in (written[0] / "made.json").read_text()


def test_comparisons_stand_in_the_table_as_they_are(whole: Report, written: tuple[Path, list[str]]) -> None:
    lines = (written[0] / "made.md").read_text().splitlines()
    for one in whole.comparisons:
        (line,) = [line for line in lines if line.startswith(f"| {one.what} | {one.against} |")]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[3:5] == [shown(one.auc), shown(one.log_loss_nats)]


def shown(one: Estimate) -> str:
    text = f"{one.value:+.5f} ± {one.half_width():.5f}".replace("-", "−")
    return f"**{text}**" if one.is_clear() else text
