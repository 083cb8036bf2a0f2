"""Study tables: what goes along with the gain of merging, and how steady predictions are."""

from __future__ import annotations

from trainer.benchmark.diversity import GAINS, MEASURES, Agreement, DiversityStudy
from trainer.benchmark.page.markdown import count, folded, sections, table, with_ends, with_half_width
from trainer.benchmark.page.stability_chart import shown_stability
from trainer.benchmark.report import Report
from trainer.benchmark.stability import MOVED


def diversity_section(report: Report) -> str:
    """Rank correlations of measures with gains; over all sizes where there are several, each size folded."""
    titles = [_study_title(report, one) for one in report.diversity]
    whole = [one for one in report.diversity if one.size is None] or list(report.diversity[:1])
    note = (
        "Spearman's rank correlation, over subsets of one size, of a measure of how their columns differ with what"
        " merging them gains; mean over groups and windows, with the 95 % interval of a jackknife over members. Bold"
        " where it excludes zero. *By identity*: the two are one number by definition. The best member is the"
        " best on the judged rows."
    )
    return sections(
        note,
        *(f"**{title}**\n\n{_table(one)}" for title, one in zip(titles, report.diversity, strict=True) if one in whole),
        *(folded(title, _table(one)) for title, one in zip(titles, report.diversity, strict=True) if one not in whole),
    )


def _study_title(report: Report, study: DiversityStudy) -> str:
    strategy = report.benchmark.strategies.get(study.strategy)
    title = strategy.title if strategy else "all these strategies together"
    size = "mean over its sizes" if study.size is None else f"K = {study.size}"
    return f"{title}, {size}: {count(study.num_subsets)} subsets"


def _table(study: DiversityStudy) -> str:
    by_place = {(one.measure, one.gain): one for one in study.rows}
    rows = [[title, *(_shown(by_place[measure, of]) for of in GAINS)] for measure, title in MEASURES.items()]
    return table(["measure", *GAINS.values()], rows)


def _shown(agreement: Agreement) -> str:
    return "by identity" if agreement.by_identity else with_ends(agreement.correlation, 2)


def stability_section(report: Report) -> str:
    """How far a row's probability moves when everything is trained anew."""
    rows = [
        [
            report.benchmark.strategies[one.strategy].title,
            count(one.size),
            with_half_width(one.mean_change, 4),
            with_half_width(one.share_of_single, 2),
            with_half_width(one.moved_share, 4),
            with_half_width(one.rank_change, 5),
        ]
        for one in shown_stability(report)
    ]
    head = [
        "strategy",
        "K",
        "mean change of p",
        "of one model's",
        f"rows moved by more than {MOVED:g}",
        "1 − rank correlation",
    ]
    pairs = report.stability[0].num_pairs
    note = (
        f"Between two groups of trainings that differ in seeds alone, mean over {count(pairs)}"
        f" pair{'s' if pairs > 1 else ''}, ± half the 95 % interval of a jackknife over groups."
    )
    return sections(note, table(head, rows))
