"""The page of a benchmark: docs/benchmarks/NAME.md, the same figures as NAME.json, and charts in images/."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from trainer import storage
from trainer.benchmark.page.curve_chart import curve_chart, drawn_strategies
from trainer.benchmark.page.diversity_chart import diversity_chart, drawn_study
from trainer.benchmark.page.in_short import in_short
from trainer.benchmark.page.limits import limits
from trainer.benchmark.page.look import save, strategy_marks
from trainer.benchmark.page.made_how import how_section
from trainer.benchmark.page.markdown import sections
from trainer.benchmark.page.member_chart import member_chart
from trainer.benchmark.page.merged_tables import frontier_table, merged_section
from trainer.benchmark.page.pair_tables import comparison_section, fitted_section
from trainer.benchmark.page.plain_values import plain_values
from trainer.benchmark.page.single_tables import single_section
from trainer.benchmark.page.singles import Single, is_plain, singles
from trainer.benchmark.page.size_fits import SizeFit, fits_table, size_fits
from trainer.benchmark.page.stability_chart import stability_chart
from trainer.benchmark.page.study_tables import diversity_section, stability_section
from trainer.benchmark.page.wall_chart import wall_chart
from trainer.benchmark.report import Report

IMAGES_NAME = "images"


def write_page(report: Report, *, name: str, given: str, folder: str) -> list[str]:
    """Writes the page, its figures and its charts.

    Args:
        report: What was measured.
        name: The benchmark's.
        given: What it is called on the command line: its name, or its file.
        folder: Where it goes; made where it is not there.

    Returns:
        The paths written.
    """
    storage.make_folder(storage.join(folder, IMAGES_NAME))
    page = _Page(report, name=name, given=given, folder=folder)
    markdown, values = storage.join(folder, f"{name}.md"), storage.join(folder, f"{name}.json")
    storage.write_text(markdown, page.text())
    storage.write_json(values, page.values())
    return [markdown, values, *page.charts]


class _Page:
    """A page as it is put together."""

    def __init__(self, report: Report, *, name: str, given: str, folder: str) -> None:
        self._report, self._name, self._given, self._folder = report, name, given, folder
        self._singles = singles(report)
        self._fits = size_fits(report)
        self._sentences = in_short(report, self._singles)
        self._marks = strategy_marks({of: one.family for of, one in report.benchmark.strategies.items()})
        self.charts: list[str] = []

    def values(self) -> dict[str, object]:
        """For programs."""
        return plain_values(
            self._report, name=self._name, singles=self._singles, fits=self._fits, sentences=self._sentences
        )

    def text(self) -> str:
        """For people; draws the charts as it comes to them."""
        report, benchmark = self._report, self._report.benchmark
        parts = {
            "How it was made": how_section(report, given=self._given),
            "Single members": self._members(self._singles),
            "Merged": merged_section(report),
            "Number of merged predictions": self._curves(self._fits),
            "Quality against cost": self._wall(),
            "Fitted merges": fitted_section(report),
            "Paired comparisons": comparison_section(report),
            "What goes along with the gain": self._diversity(),
            "How steady predictions are": self._stability(),
            "What these figures do not show": "\n".join(f"- {sentence}" for sentence in limits(report)),
        }
        written = [f"## {title}\n\n{part.strip()}" for title, part in parts.items() if part.strip()]
        short = "\n".join(["**In short**", "", *(f"- {sentence}" for sentence in self._sentences)])
        return sections(f"# {benchmark.title}", " ".join(benchmark.about.split()), short, *written)

    def _members(self, found: Sequence[Single]) -> str:
        own = [one for one in found if is_plain(self._report, one)]
        published = ", beside the published ones" if any(one.published for one in own) else ""
        told = f"AUC and log loss of each single member{published}"
        chart = self._chart("members", lambda: member_chart(own), told=told) if len(own) > 1 else ""
        return sections(single_section(self._report, found), chart)

    def _curves(self, fits: list[SizeFit]) -> str:
        if not drawn_strategies(self._report):
            return ""
        chart = self._chart(
            "curve",
            lambda: curve_chart(self._report, marks=self._marks, fits=fits),
            told="AUC and log loss over the number of merged predictions",
        )
        bars = "Bars are 95 % intervals over groups of trainings." if self._report.benchmark.groups > 1 else ""
        dotted = "Dotted lines are fits, drawn to twice the largest size." if fits else ""
        return sections(chart, f"{bars} {dotted}", fits_table(self._report, fits))

    def _wall(self) -> str:
        chart = self._chart(
            "wall",
            lambda: wall_chart(self._report, marks=self._marks),
            told="Log loss and AUC against multiply-adds, every strategy at every size",
        )
        note = (
            "What no cheaper prediction betters in log loss, from the cheapest on; by the means, without regard to"
            " their intervals:"
        )
        return sections(chart, note, frontier_table(self._report))

    def _diversity(self) -> str:
        studies = self._report.diversity
        if not studies:
            return ""
        told = "Gain of merging against measures of how the merged columns differ"
        chart = self._chart("diversity", lambda: diversity_chart(drawn_study(studies)), told=told)
        return sections(diversity_section(self._report), chart)

    def _stability(self) -> str:
        if not self._report.stability:
            return ""
        told = "Mean change of a row's probability between two groups of trainings"
        chart = self._chart("stability", lambda: stability_chart(self._report, marks=self._marks), told=told)
        return sections(stability_section(self._report), chart)

    def _chart(self, kind: str, draw: Callable[[], Figure], *, told: str) -> str:
        """Draws it; gives the words that show it."""
        path = save(draw, storage.join(self._folder, IMAGES_NAME, f"{self._name}_{kind}"))
        self.charts.append(path)
        return f"![{told}]({IMAGES_NAME}/{storage.base_name(path)})"
