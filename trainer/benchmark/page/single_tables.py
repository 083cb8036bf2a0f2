"""Single tables: every member by itself, beside what is published."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.benchmark.page.markdown import count, folded, plain, rate, sections, table, with_half_width
from trainer.benchmark.page.singles import Single, is_plain
from trainer.benchmark.report import Report


def single_section(report: Report, singles: Sequence[Single]) -> str:
    """The members that the others are compared with in one table, those of other pools folded."""
    own = [one for one in singles if is_plain(report, one)]
    others = [one for one in singles if not is_plain(report, one)]
    published = any(one.published for one in own)
    words = [
        "Means over groups of trainings, ± half the 95 % interval (Student's), the highest AUC first. Parameters count"
        " tables; multiply-adds are those of one row's forward pass.",
        "Rows/s: scored by one process on one thread, tables included." if report.speeds else "",
        f"{report.benchmark.published_source} Published figures have no interval here." if published else "",
    ]
    return sections(
        " ".join(word for word in words if word),
        _quality(own, published=published),
        _cost(own, published=published, with_speed=bool(report.speeds)),
        "\n".join(f"- {note}" for note in report.benchmark.notes),
        folded(f"Members of other pools ({len(others)})", _others(others, with_speed=bool(report.speeds)))
        if others
        else "",
    )


def _quality(singles: Sequence[Single], *, published: bool) -> str:
    theirs = ["AUC, published", "− published", "log loss, published", "− published"] if published else []
    head = ["member", "AUC", *theirs[:2], "log loss", *theirs[2:], "NE", "calibration"]
    rows = []
    for one in singles:
        beside = {
            metric: [
                plain(getattr(one.published, metric) if one.published else None, 4),
                plain(one.behind(metric), 4, signed=True),
            ]
            for metric in ("auc", "log_loss_nats")
        }
        rows.append(
            [
                one.member,
                with_half_width(one.interval("auc"), 5),
                *(beside["auc"] if published else []),
                with_half_width(one.interval("log_loss_nats"), 5),
                *(beside["log_loss_nats"] if published else []),
                plain(one.mean("ne"), 4),
                plain(one.mean("calibration"), 3),
            ]
        )
    return table(head, rows)


def _cost(singles: Sequence[Single], *, published: bool, with_speed: bool) -> str:
    theirs = ["parameters, published", "runs published"] if published else []
    head = ["member", "kind", "parameters", *theirs, "multiply-adds", "epochs", *(["rows/s"] if with_speed else [])]
    rows = []
    for one in singles:
        known = one.published
        beside = [count(known.parameters if known else None), count(known.runs if known else None)]
        rows.append(
            [
                one.member,
                one.kind,
                count(one.parameters),
                *(beside if published else []),
                count(one.multiply_adds),
                plain(one.epochs, 1),
                *([rate(one.rows_per_second)] if with_speed else []),
            ]
        )
    return table(head, rows, words=2)


def _others(singles: Sequence[Single], *, with_speed: bool) -> str:
    head = ["pool", "member", "columns a group", "AUC", "log loss", "NE", "calibration", "parameters", "multiply-adds"]
    head += ["rows/s"] if with_speed else []
    rows = [
        [
            one.pool,
            one.member,
            count(one.num_columns),
            with_half_width(one.interval("auc"), 5),
            with_half_width(one.interval("log_loss_nats"), 5),
            plain(one.mean("ne"), 4),
            plain(one.mean("calibration"), 3),
            count(one.parameters),
            count(one.multiply_adds),
            *([rate(one.rows_per_second)] if with_speed else []),
        ]
        for one in singles
    ]
    return table(head, rows, words=2)
