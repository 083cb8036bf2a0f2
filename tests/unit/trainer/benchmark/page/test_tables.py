"""The tables of single members and of merges: their figures are those of the points."""

from __future__ import annotations

import pytest

from configs.benchmark_schema import Pool, Published, Strategy
from tests.support.benchmarks import SINGLE, made_results
from trainer.benchmark.columns import Results
from trainer.benchmark.comparisons import comparisons
from trainer.benchmark.page.in_short import in_short
from trainer.benchmark.page.merged_tables import frontier_table, merged_section, rows_per_second
from trainer.benchmark.page.pair_tables import comparison_section
from trainer.benchmark.page.single_tables import single_section
from trainer.benchmark.page.singles import singles
from trainer.benchmark.points import figures, over_groups, points
from trainer.benchmark.report import Report

SPEEDS = {("kinds", "deep"): 100_000.0, ("kinds", "cross"): 50_000.0, ("kinds", "dot"): 25_000.0}


def report_of(results: Results, **more: object) -> Report:
    return Report(results=results, points=points(results), num_trainings=9, machine="a machine", **more)  # type: ignore[arg-type]


def cells(text: str, *start: str) -> list[str]:
    """The one line that starts so."""
    wanted = [f" {word} " for word in start]
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    (found,) = [line for line in lines if line[: len(wanted)] == wanted]
    return [cell.strip() for cell in found]


def own_figures(results: Results, member: str, *, pool: str = "kinds") -> list[float]:
    """AUC of each group, by hand."""
    labels = results.rows["all"].labels_N
    return [
        figures(labels, one.logits_N.astype("float64")).auc
        for one in results.columns
        if (one.pool, one.member) == (pool, member)
    ]


def test_a_members_line_has_its_mean_beside_the_published() -> None:
    results = made_results(published={"cross": Published(auc=0.7, log_loss_nats=0.5, parameters=1_234, runs=5)})
    report = report_of(results, speeds=SPEEDS)
    text = single_section(report, singles(report))
    wanted = over_groups(own_figures(results, "cross"))
    line = cells(text.split("kind |")[0], "cross")
    assert line[1] == f"{wanted.value:.5f} ± {wanted.high - wanted.value:.5f}"
    assert line[2:4] == ["0.7000", f"{wanted.value - 0.7:+.4f}".replace("-", "−")]
    assert cells(text.split("kind |")[1], "cross") == [
        "cross",
        "cross",
        "7,000",
        "1,234",
        "5",
        "4,000",
        "2.0",
        "50,000",
    ]
    assert cells(text.split("kind |")[0], "deep")[2:4] == ["–", "–"]
    order = [one.mean("auc") for one in singles(report)]
    assert order == sorted(order, reverse=True)


def test_members_of_other_pools_are_apart_and_beside_nothing_published() -> None:
    pools = {"kinds": Pool(members=("deep", "cross")), "seeds": Pool(members=("deep",), seeds=4)}
    results = made_results(
        noises={"deep": 1.0, "cross": 1.2}, pools=pools, published={"deep": Published(auc=0.7)}, headline="single"
    )
    report = report_of(results)
    text = single_section(report, singles(report))
    assert "Members of other pools (1)" in text
    line = cells(text, "seeds", "deep")
    means = own_figures(results, "deep", pool="seeds")
    groups = [sum(means[first : first + 4]) / 4 for first in (0, 4, 8)]
    assert line[2:4] == [
        "4",
        f"{over_groups(groups).value:.5f} ± {over_groups(groups).high - over_groups(groups).value:.5f}",
    ]
    assert [one.published is None for one in singles(report) if one.pool == "seeds"] == [True]


def test_a_member_that_others_have_published_is_among_the_first_whatever_is_merged() -> None:
    only = Strategy(title="one model", family="single", pools=("kinds",), members=("deep",), sizes=(1,))
    results = made_results(
        strategies={"single": only},
        headline="single",
        published={"dot": Published(auc=0.7), "deep": Published(auc=0.7)},
    )
    report = report_of(results)
    first, others = single_section(report, singles(report)).split("Members of other pools (1)")
    assert cells(first.split("kind |")[0], "dot")[2] == "0.7000"
    assert cells(others, "kinds", "cross")
    assert "of 2 members with a published AUC" in " ".join(in_short(report, singles(report)))


def test_a_strategys_lines_are_its_points() -> None:
    report = report_of(made_results(), speeds=SPEEDS)
    text = merged_section(report)
    point = report.of("kinds")[-1]
    line = cells(text.split("<details>")[0], "K kinds", "3")
    auc, gain = point.interval("auc"), point.gain(report.single, "auc")
    assert line[2] == f"{auc.value:.5f} ± {auc.high - auc.value:.5f}"
    assert line[6].strip("*") == f"{gain.value:+.5f} ± {gain.high - gain.value:.5f}".replace("-", "−")
    assert line[6].startswith("**") == (gain.low > 0 or gain.high < 0)
    # 3 x 5,000 of the tables, 1,000 + 2,000 + 3,000 beside; trained in 10 + 20 + 30 seconds, one model in 20 on
    # average; one row takes 10 + 20 + 40 microseconds
    assert line[8:] == ["21,000", "0.06", "12,000", "3.0", "14,300"]
    assert cells(text.split("<details>")[0], "one model", "1")[6:8] == ["–", "–"]
    two = report.of("kinds")[1]
    assert cells(text.split("<details>")[1], "2")[1:3] == [
        "3",
        f"{two.interval('auc').value:.5f} ± {two.interval('auc').high - two.interval('auc').value:.5f}",
    ]


def test_without_speeds_there_is_no_such_column() -> None:
    report = report_of(made_results())
    assert "rows/s" not in merged_section(report).lower()
    assert rows_per_second(report, report.headline) is None


def test_the_frontier_holds_what_nothing_cheaper_betters() -> None:
    strategies = {
        "single": SINGLE,
        "good": Strategy(title="cheap and good", family="a", pools=("kinds",), members=("deep",), sizes=(1,)),
        "bad": Strategy(title="dear and bad", family="b", pools=("kinds",), members=("dot",), sizes=(1,)),
        "all": Strategy(title="everything", family="c", pools=("kinds",)),
    }
    report = report_of(
        made_results(noises={"deep": 0.5, "cross": 0.6, "dot": 2.0}, strategies=strategies, headline="all")
    )
    text = frontier_table(report)
    assert "cheap and good" in text and "dear and bad" not in text
    losses = {one.strategy: one.interval("log_loss_nats").value for one in report.points}
    assert ("everything" in text) == (losses["all"] < min(losses["good"], losses["single"]))


@pytest.mark.parametrize(("groups", "said"), [(1, "log loss) alone."), (3, "and over groups of trainings together.")])
def test_what_an_interval_of_a_pair_holds_is_said(groups: int, said: str) -> None:
    results = made_results(groups=groups)
    text = comparison_section(report_of(results, comparisons=comparisons(results, baselines={})))
    assert said in text
