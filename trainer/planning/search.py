"""Survey: a study's world sizes: those named, or upwards from what the bytes allow until it fits and is in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from configs.hardware_schema import HardwareFile
from sharding.hardware import planned_hardware
from trainer.planning.byte_sum import Purpose
from trainer.planning.capacity_point import CapacityPoint, Refusal
from trainer.planning.page.words import duration, many
from trainer.planning.page.words import short as short_number
from trainer.planning.plans import OutOfBudgetError, Plans
from trainer.planning.study import Case, StudiedPoint, Study, Variant

_IN_VAIN = 4  # worlds that are larger and no faster, before the deadline is given up


@dataclass(frozen=True, kw_only=True)
class Range:
    """Which world sizes a study looks at."""

    ranks: tuple[int, ...]  # empty: upwards from what the bytes allow
    most: int  # where going upwards ends
    climbs: bool = False  # upwards beside the named ones, too


class Survey:
    """Fills a study, point by point; what was found stays there when it is cut off.

    Args:
        study: Takes the points and the notes.
        plans: Plans them.
        sizes: Which world sizes.
    """

    def __init__(self, study: Study, *, plans: Plans, sizes: Range) -> None:
        self._study, self._plans, self._sizes = study, plans, sizes

    def run(self, variants: Sequence[Variant]) -> None:
        """Looks at every ensemble on every machine for every purpose, until that is done or the budget spent.

        Raises:
            ConfigError: of a study without a sweep: such machines or such placements cannot be had.
        """
        asked = self._study.asked
        work = [(v, hardware, purpose) for v in variants for hardware in asked.hardware for purpose in asked.purposes]
        if self._sizes.ranks and not self._sizes.climbs:
            self._plans.expected = len(work) * len(self._sizes.ranks)
        for done, (variant, hardware, purpose) in enumerate(work):
            try:
                self._look_at(variant, hardware=hardware, purpose=purpose)
            except OutOfBudgetError as stop:
                self._leave_out(stop, work[done], num_left=len(work) - done - 1)
                return
            except KeyboardInterrupt:
                self._leave_out("stopped by Ctrl-C", work[done], num_left=len(work) - done - 1)
                raise
        self._plans.expected = None

    def _leave_out(self, stop: object, at: tuple[Variant, HardwareFile, Purpose], *, num_left: int) -> None:
        variant, hardware, purpose = at
        swept = "".join(f", {key} = {value}" for key, value in variant.swept.items())
        further = f"; {many(num_left, 'further combination')} not begun" if num_left else ""
        self._study.notes.append(f"{stop}: {hardware.name} ({purpose}{swept}) is not finished{further}")

    def _look_at(self, variant: Variant, *, hardware: HardwareFile, purpose: Purpose) -> None:
        def visit(world_size: int) -> CapacityPoint:
            return self._visit(Case(variant=variant, hardware=hardware, purpose=purpose, world_size=world_size))

        found = [visit(ranks) for ranks in self._sizes.ranks]
        if self._sizes.ranks and not self._sizes.climbs:
            return
        seen = {point.world_size for point in found}
        fitting = min((point for point in found if point.fits), key=lambda point: point.world_size, default=None)
        total = self._plans.sum_of(variant, purpose=purpose, hardware=hardware)
        if total.is_replicated:
            self._try_one_rank(found, visit=visit, hardware=hardware, hours=self._study.asked.epoch_hours)
            return
        sizes = [
            size
            for size in world_sizes(hardware, most=self._sizes.most)
            if size not in seen and (fitting is None or size < fitting.world_size)
        ]
        possible = [size for size in sizes if total.shortfall(hardware, world_size=size) is None]
        ruled_out = [size for size in sizes if not possible or size < possible[0]]
        if ruled_out:
            found.append(visit(ruled_out[-1]))  # says why
            self._note(
                hardware, purpose, f"the bytes alone rule out up to {ruled_out[-1]} ranks; they were not planned"
            )
        first_fit = fitting
        for size in possible:
            found.append(visit(size))
            if found[-1].fits:
                first_fit = found[-1]
                break
        if first_fit is None:
            self._note(hardware, purpose, f"more than {self._sizes.most} ranks were not tried (--max-ranks)")
        elif self._study.asked.epoch_hours is not None:
            self._hasten(first_fit, visit=visit, hardware=hardware, hours=self._study.asked.epoch_hours)
        self._ask_host_memory(found, variant=variant, hardware=hardware, purpose=purpose)

    def _try_one_rank(
        self,
        found: Sequence[CapacityPoint],
        *,
        visit: Callable[[int], CapacityPoint],
        hardware: HardwareFile,
        hours: float | None,
    ) -> None:
        """Where every rank holds all tables: one has as much memory as there is for a rank, and more ranks no more."""
        point = min((one for one in found if one.fits), key=lambda one: one.world_size, default=None) or visit(1)
        if not point.fits:
            text = 'every rank holds all tables: more ranks do not help; score.tables = "sharded", a smaller dim, or '
            text += "a GPU with more memory" if hardware.device == "cuda" else "a host with more memory"
            self._note(hardware, point.purpose, text)
        elif hours is not None:
            self._hasten(point, visit=visit, hardware=hardware, hours=hours)

    def _ask_host_memory(
        self, found: Sequence[CapacityPoint], *, variant: Variant, hardware: HardwareFile, purpose: Purpose
    ) -> None:
        """Whether the largest size that GPU memory is too small for would do with tables in host memory: one plan."""
        groups = {
            member.tables: variant.config.table_group(member.tables) for member in variant.config.members.values()
        }
        automatic = [name for name, group in groups.items() if group.kernel == "auto"]
        short = [one.world_size for one in found if one.refusal is not None and _is_short_of_device(one.refusal)]
        if hardware.device != "cuda" or not automatic or not short:
            return
        case = Case(variant=variant, hardware=hardware, purpose=purpose, world_size=max(short), host_memory=True)
        try:
            point = self._plans.try_point(case)
        except OutOfBudgetError as stop:
            self._note(
                hardware, purpose, f"{stop}: not seen whether {many(max(short), 'GPU')} would do with host memory"
            )
            return
        keys = ", ".join(f'tables.{name}.kernel = "uvm_caching"' for name in automatic)
        gpus = many(max(short), "GPU")
        if point.refusal is None:
            text = f"{gpus} would hold it with tables in host memory ({keys}): {short_number(point.rows_per_second)}"
            self._note(hardware, purpose, f"{text} rows/s, {duration(point.hours)}")
        else:
            text = f"{gpus} would not hold it with tables in host memory ({keys}) either: {point.refusal.sentence}"
            self._note(hardware, purpose, text)

    def _hasten(
        self,
        point: CapacityPoint,
        *,
        visit: Callable[[int], CapacityPoint],
        hardware: HardwareFile,
        hours: float,
    ) -> None:
        """Larger worlds, until the deadline is met; sizes that even a linear gain would leave late are passed over."""
        best, size, in_vain = point, point.world_size, 0
        passed: list[int] = []
        while best.hours > hours and in_vain < _IN_VAIN:
            needed = math.ceil(best.world_size * best.hours / hours)
            larger = [one for one in world_sizes(hardware, most=self._sizes.most) if one > size]
            passed += [one for one in larger if one < needed]
            size = next((one for one in larger if one >= needed), 0)
            if not size:
                break
            found = visit(size)
            is_faster = found.fits and found.hours < best.hours
            best, in_vain = (found, 0) if is_faster else (best, in_vain + 1)
        if passed:
            text = (
                f"{many(len(passed), 'size')} of {passed[0]} to {passed[-1]} ranks passed over, late even if ranks only"
            )
            self._note(hardware, point.purpose, f"{text} added up; --ranks plans them")
        if best.hours > hours:
            why = (
                f"{_IN_VAIN} larger worlds in a row were no faster"
                if in_vain
                else f"more than {self._sizes.most} ranks are needed (--max-ranks)"
            )
            self._note(hardware, point.purpose, f"{hours:g} hours are out of reach: {why}")

    def _visit(self, case: Case) -> CapacityPoint:
        lenient = bool(self._study.asked.swept)
        point = self._plans.try_point(case) if lenient else self._plans.point(case)
        total = self._plans.sum_of(case.variant, purpose=case.purpose, hardware=case.hardware)
        if all(one.point is not point for one in self._study.points):
            self._study.points.append(StudiedPoint(case=case, point=point, table_bytes=total.table_bytes))
        return point

    def _note(self, hardware: HardwareFile, purpose: Purpose, text: str) -> None:
        self._study.notes.append(f"{hardware.name} ({purpose}): {text}")


def _is_short_of_device(refusal: Refusal) -> bool:
    """Whether it is memory that is missing, and not a GPU host's; what cannot be had at all needs no bytes."""
    return refusal.where != "host" and refusal.need_bytes > 0


def world_sizes(hardware: HardwareFile, *, most: int, least: int = 1) -> Iterator[int]:
    """The sizes that are looked at: parts of a host by doubling, then whole hosts, one more at a time."""
    of_host = hardware.host.ranks
    size = 1
    while size < of_host and size <= most:
        if size >= least:
            yield size
        size *= 2
    yield from (size for size in range(of_host, most + 1, of_host) if size >= least)


def check_sizes(ranks: Sequence[int], *, hardware: Sequence[HardwareFile]) -> None:
    """Refuses world sizes that some of the machines cannot be had in.

    Raises:
        ConfigError: names the flag, the number and what to take.
    """
    for machine in hardware:
        for size in ranks:
            planned_hardware(machine, world_size=size)
