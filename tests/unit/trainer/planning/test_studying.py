"""A request carried out: what is asked is there, and what was found stays."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

from rich.console import Console

from tests.support.planned_cases import MadeUpPlanner, facts, machine, variant
from trainer.planning.growth import grown_variant
from trainer.planning.page.page import page
from trainer.planning.plans import Budget
from trainer.planning.request import Files, Request
from trainer.planning.search import Range
from trainer.planning.study import Asked, Case, Study
from trainer.planning.studying import PointPlanner, studied
from trainer.planning.terminal import show


def request_of(mib: float, *, ranks: tuple[int, ...] = (4,), purposes=("train", "score"), **more: Any) -> Request:
    asked = Asked(
        command="plan it",
        config="planned",
        hardware=(machine(mib, price=8.0),),
        purposes=purposes,
        epoch_hours=more.pop("epoch_hours", None),
        swept={"ranks": ranks} if len(ranks) > 1 else {},
    )
    given: dict[str, Any] = {
        "asked": asked,
        "variants": (variant(),),
        "sizes": Range(ranks=ranks, most=32, climbs=not ranks),
        "budget": Budget(max_plans=99, seconds=None),
        "growth_rate": None,
        "request_rows": None,
        "quality": None,
        "files": Files(json=None, csv=None, html=None, plan=None),
    }
    return Request(**(given | more))


def carried_out(request: Request, planner=None) -> tuple[Study, bool, str]:
    study = Study(asked=request.asked, data=facts())
    is_whole = studied(study, request, say=lambda text: None, planned=planner or MadeUpPlanner())
    printed = io.StringIO()
    show(study.as_json(), console=Console(file=printed, width=200))
    assert "<html" in page(study.as_json())
    return study, is_whole, printed.getvalue().replace("\u00a0", " ")


def test_a_study_with_everything():
    quality = [{"members": 3, "auc": 0.81}]
    request = request_of(64, ranks=(1, 2, 4), growth_rate=0.05, request_rows=100, quality=quality, epoch_hours=0.004)
    study, is_whole, printed = carried_out(request)
    assert is_whole and len(study.points) == 6 and not study.remedies and not study.notes
    assert {one["purpose"] for one in study.growth} == {"train", "score"}
    assert study.serving is not None and study.serving["slowest_member"]
    for told in (
        "Training, smallest that fits",
        "Memory of a rank",
        "A step of the slowest rank",
        "<- bottleneck",
        "Making batches hides behind the rest of a step.",
        "Sent by the busiest rank",
        "Growth: when tables outgrow the machines",
        "Serving a request of 100 rows on box",
        "Quality against cost, training",
        "0.81000",
    ):
        assert told in printed, told


def test_where_nothing_fits_there_are_remedies():
    study, is_whole, printed = carried_out(request_of(5, purposes=("train",)))
    assert is_whole and not study.fits("train")
    told = study.remedies["train"]
    assert told["of"] == "4 ranks of box" and told["capacity_bytes"] == 5 * 2**20
    assert told["reserve_bytes"] == told["capacity_bytes"] // 10
    assert told["need_bytes"] > told["capacity_bytes"] - told["reserve_bytes"]
    assert "1. " in printed and 'members.solo.tables = "shared"' in printed and "yes, by a plan" in printed
    assert "nothing that was tried fits" in printed


def test_one_purpose_may_fit_where_the_other_does_not():
    study, _, printed = carried_out(request_of(5))
    assert list(study.remedies) == ["train"] and study.fits("score")
    assert "Scoring" in printed and "Training fits nowhere" in printed


def test_ctrl_c_keeps_what_is_there():
    class Stopped(MadeUpPlanner):
        def __call__(self, case):
            if len(self.cases) == 2:
                raise KeyboardInterrupt
            return super().__call__(case)

    study, is_whole, printed = carried_out(request_of(64, ranks=(1, 2, 4), growth_rate=0.1), Stopped())
    assert not is_whole and len(study.points) == 2 and not study.growth
    assert "stopped by Ctrl-C" in printed


def test_serving_that_does_not_fit_is_noted():
    study, is_whole, printed = carried_out(request_of(64, request_rows=100_000))
    assert is_whole and study.serving is None
    assert "serving is not answered: --serving: member deep on one server" in printed


def test_nothing_planned_is_said():
    _, _, printed = carried_out(request_of(64, budget=Budget(max_plans=99, seconds=1e-9)))
    assert "Training: stopped before an answer." in printed and "longer with --timeout" in printed


def test_a_given_plan_is_for_the_ensemble_that_was_asked_for_alone(monkeypatch):
    paths = []

    def planned(job, *, hardware, world_size, plan_path):
        paths.append(plan_path)

    monkeypatch.setattr("trainer.planning.studying.plan_point", planned)
    ensemble = variant("--run.plan=plan.json")
    planner = PointPlanner([ensemble])
    case = Case(variant=ensemble, hardware=machine(64), purpose="train", world_size=1)
    planner(case)
    planner(dataclasses.replace(case, variant=grown_variant(ensemble, 2.0)))
    planner(dataclasses.replace(case, purpose="score"))
    assert paths == ["plan.json", "", ""]
