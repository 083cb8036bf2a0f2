"""studied(): a request, carried out: points, remedies where nothing fits, growth, serving and quality."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from configs.errors import PlanError
from sharding.hardware import planned_hardware
from trainer.planning.capacity_point import CapacityPoint
from trainer.planning.growth import outgrown
from trainer.planning.page.words import many
from trainer.planning.planned_point import plan_point
from trainer.planning.planning_job import PlanningJob
from trainer.planning.plans import OutOfBudgetError, Plans
from trainer.planning.remedies import blame, nearest, remedies, short_memory
from trainer.planning.request import Request
from trainer.planning.search import Survey
from trainer.planning.serving import serving
from trainer.planning.study import Case, Study, Variant


def studied(
    study: Study,
    request: Request,
    *,
    say: Callable[[str], None],
    planned: Callable[[Case], CapacityPoint] | None = None,
) -> bool:
    """Fills the study; gives whether all of it was done: Ctrl-C ends it, and what was found stays.

    Args:
        study: Takes what is found.
        request: What is asked.
        say: Tells how far it is.
        planned: Plans a point; not given: `plan_point`.

    Raises:
        ConfigError: of a study without a sweep: such machines or such placements cannot be had.
    """
    plans = Plans(planned or PointPlanner(request.variants), budget=request.budget, say=say)
    study.quality = request.quality
    try:
        Survey(study, plans=plans, sizes=request.sizes).run(request.variants)
        for purpose in study.asked.purposes:
            if study.of(purpose) and not study.fits(purpose):
                study.remedies[purpose] = _remedies(study, purpose, request=request, plans=plans)
        if request.growth_rate is not None:
            _grow(study, rate=request.growth_rate, most_ranks=request.sizes.most, plans=plans)
        if request.request_rows is not None:
            _serve(study, request, rows=request.request_rows, plans=plans)
    except KeyboardInterrupt:
        if not study.notes:
            study.notes.append("stopped by Ctrl-C; what is here was planned before")
        return False
    return True


class PointPlanner:
    """Plans points by `plan_point`; what does not depend on the machine is made once for points of one ensemble.

    Args:
        asked: The ensembles that run.plan is meant for, where it is given. Others, grown or changed, are planned anew.
    """

    def __init__(self, asked: Collection[Variant]) -> None:
        self._asked = asked
        self._jobs: dict[tuple[str, bool], tuple[Variant, PlanningJob]] = {}

    def __call__(self, case: Case) -> CapacityPoint:
        """The point."""
        key = (case.purpose, case.host_memory)
        variant, job = self._jobs.get(key, (None, None))
        if variant is not case.variant or job is None:
            job = PlanningJob(
                config=case.variant.config,
                data=case.variant.data,
                purpose=case.purpose,
                host_memory=case.host_memory,
            )
            self._jobs[key] = (case.variant, job)
        is_given = case.purpose == "train" and case.variant in self._asked
        path = case.variant.config.run.plan if is_given else ""
        return plan_point(job, hardware=case.hardware, world_size=case.world_size, plan_path=path)


def _remedies(study: Study, purpose: str, *, request: Request, plans: Plans) -> dict[str, Any]:
    one = nearest(study.of(purpose))
    found = remedies(one, most_ranks=request.sizes.most, plans=plans)
    case, memory = one.case, short_memory(one)
    if (why := blame(one, plans=plans)) is not None:
        study.notes.append(f"{case.hardware.name} ({purpose}): {why}")
    total = plans.sum_of(case.variant, purpose=case.purpose, hardware=case.hardware)
    machine = planned_hardware(case.hardware, world_size=case.world_size)
    capacity = machine.ddr_bytes if memory == "host" else machine.rank_bytes
    return {
        "of": f"{many(case.world_size, 'rank')} of {case.hardware.name}",
        "hardware": case.hardware.name,
        "world_size": case.world_size,
        "need_bytes": total.least_per_rank(case.hardware, world_size=case.world_size, memory=memory),
        "capacity_bytes": capacity,
        "reserve_bytes": round(capacity * machine.reserve_share),
        "memory": memory,
        "kinds": total.kinds(memory),  # what the need is of, in words
        "changes": [remedy.as_json() for remedy in found],
    }


def _grow(study: Study, *, rate: float, most_ranks: int, plans: Plans) -> None:
    """Of each answer, once."""
    for purpose in study.asked.purposes:
        answers = {id(one): one for one in study.chosen(purpose).values() if one is not None}
        for one in answers.values():
            place = study.points.index(one)
            study.growth.append(outgrown(one, place=place, rate=rate, most_ranks=most_ranks, plans=plans))


def _serve(study: Study, request: Request, *, rows: int, plans: Plans) -> None:
    answer = study.recommended()
    variant = request.variants[0] if answer is None else answer.case.variant
    hardware = study.asked.hardware[0] if answer is None else answer.case.hardware
    try:
        study.serving = serving(variant, hardware=hardware, request_rows=rows, plans=plans)
    except (PlanError, OutOfBudgetError) as error:
        study.notes.append(f"serving is not answered: {error}")
