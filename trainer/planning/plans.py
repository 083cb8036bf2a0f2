"""Plans: points of a study, each planned once, as long as plans and time are left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from configs.errors import ConfigError, PlanError
from configs.hardware_schema import HardwareFile
from sharding.hardware import planned_hardware
from trainer.clock import clock
from trainer.planning.byte_sum import ByteSum, Purpose, byte_sum
from trainer.planning.capacity_point import CapacityPoint, Refusal
from trainer.planning.page.words import many
from trainer.planning.planned_point import unplanned_point
from trainer.planning.study import STOPPED, Case, Variant

_SAY_SECONDS = 5.0


class OutOfBudgetError(Exception):
    """No plan is left, or no time; the text says which flag gives more."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a study may take."""

    max_plans: int
    seconds: float | None  # None: as long as it takes


class Plans:
    """Plans points and remembers them.

    Args:
        planned: Plans one point.
        budget: How many plans, and how long.
        say: Tells how far it is.
    """

    def __init__(
        self,
        planned: Callable[[Case], CapacityPoint],
        *,
        budget: Budget,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._planned, self._budget, self._say = planned, budget, say
        self._points: dict[tuple[int, str, str, int, bool], CapacityPoint] = {}
        self._sums: dict[tuple[int, str, str], ByteSum] = {}
        self._variants: list[Variant] = []  # kept, so that their ids stay theirs
        self._started = self._said = time.monotonic()
        self.num_plans = 0
        self.expected: int | None = None  # plans in all, where that is known

    def sum_of(self, variant: Variant, *, purpose: Purpose, hardware: HardwareFile) -> ByteSum:
        """The byte sum of an ensemble, added up once.

        Raises:
            ConfigError: the ensemble cannot be built of its data.
        """
        key = (id(variant), purpose, hardware.device)
        if key not in self._sums:
            self._variants.append(variant)
            self._sums[key] = byte_sum(
                variant.config, features=variant.data.features, purpose=purpose, device=hardware.device
            )
        return self._sums[key]

    def point(self, case: Case) -> CapacityPoint:
        """The point: refused by its byte sum, remembered, or planned now.

        Raises:
            OutOfBudgetError: it would have to be planned, and no plan or no time is left.
            ConfigError: such machines or such placements cannot be had.
        """
        shortfall = self.sum_of(case.variant, purpose=case.purpose, hardware=case.hardware).shortfall(
            case.hardware, world_size=case.world_size, host_memory=case.host_memory
        )
        if shortfall is not None:
            return refused(
                case,
                Refusal(
                    where=shortfall.where,
                    need_bytes=shortfall.need_bytes,
                    capacity_bytes=shortfall.capacity_bytes,
                    sentence=f"{shortfall.sentence}; not planned",
                ),
            )
        key = (id(case.variant), case.hardware.name, case.purpose, case.world_size, case.host_memory)
        if key not in self._points:
            self._spend()
            self._tell(case)
            self._points[key] = self._plan(case)
        return self._points[key]

    def try_point(self, case: Case) -> CapacityPoint:
        """As `point`, with what a configuration or a planner cannot have as a refusal.

        Raises:
            OutOfBudgetError: as of `point`.
        """
        try:
            return self.point(case)
        except (ConfigError, PlanError) as error:
            refusal = Refusal(
                where="placement" if isinstance(error, ConfigError) else "planner",
                need_bytes=0,
                capacity_bytes=_rank_bytes(case),
                sentence=" ".join(str(error).split()),
            )
            return refused(case, refusal)

    def _plan(self, case: Case) -> CapacityPoint:
        try:
            return self._planned(case)
        finally:
            self.num_plans += 1

    def _spend(self) -> None:
        if self.num_plans >= self._budget.max_plans:
            raise OutOfBudgetError(f"{STOPPED} after {many(self.num_plans, 'plan')}; more with --max-plans")
        seconds = self._budget.seconds
        if seconds is not None and time.monotonic() - self._started >= seconds:
            raise OutOfBudgetError(f"{STOPPED} after {clock(seconds)}; longer with --timeout")

    def _tell(self, case: Case) -> None:
        """Before the first plan, and before others once the last word is some seconds old."""
        now = time.monotonic()
        if self.num_plans and now - self._said < _SAY_SECONDS:
            return
        self._said = now
        passed = now - self._started
        text = f"plan {self.num_plans + 1}"
        if self.expected:
            left = passed / self.num_plans * max(0, self.expected - self.num_plans) if self.num_plans else None
            text += f" of {self.expected}, {clock(passed)} passed" + ("" if left is None else f", ETA {clock(left)}")
        else:
            text += f", {clock(passed)} passed, at most {self._budget.max_plans}"
        ranks = many(case.world_size, "rank")
        self._say(f"{text}: {ranks} of {case.hardware.name} to {case.purpose}")


def refused(case: Case, refusal: Refusal) -> CapacityPoint:
    """A point that was not planned."""
    return unplanned_point(
        case.variant.config,
        purpose=case.purpose,
        hardware=case.hardware,
        world_size=case.world_size,
        refusal=refusal,
    )


def _rank_bytes(case: Case) -> int:
    """Of a rank: fewer ranks of a CPU host share all of its memory."""
    return planned_hardware(case.hardware, world_size=case.world_size).rank_bytes
