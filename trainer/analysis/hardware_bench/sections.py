"""The sections of a measurement: each has the ranks measure its points, and makes keys of a hardware file of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from configs.hardware_schema import MATMUL_TYPES
from trainer import storage
from trainer.analysis.hardware_bench import links, prepared_rows, products, table_access, tensor_passes, tiny_steps
from trainer.analysis.hardware_bench.effort import Effort
from trainer.analysis.hardware_bench.hardware_progress import HardwareProgress
from trainer.analysis.hardware_bench.machine import Machine
from trainer.analysis.hardware_bench.points import Fit, Point, of_all_ranks, rounded
from trainer.analysis.hardware_bench.process_memory import process_gib
from trainer.analysis.hardware_bench.rank_processes import RankProcesses, free_port

_Job: TypeAlias = tuple[str, Callable[..., list[Point]], tuple[Any, ...]]  # what to call it, function, arguments

_MIB = 2**20
_COLD_SHARE = 0.95  # of a file's bytes that must have come from the disk


@dataclass(frozen=True, kw_only=True)
class Section:
    """What a section found."""

    points: list[Point]
    keys: Mapping[str, Any]  # of the hardware file; a mapping under `host` and `memory` holds some keys of theirs
    fits: list[Fit] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values, the keys left out: the file has them."""
        return {
            "points": [point.as_json() for point in self.points],
            "fits": [fit.sentence() for fit in self.fits],
            "remarks": self.remarks,
        }


class HardwareBench:
    """Measures sections on all ranks.

    Args:
        ranks: Their processes, in which nothing was measured yet.
        machine: What they run on.
        effort: How much is measured.
        folder: A folder of this machine's disk that is there, for files that come and go.
        progress: Told how far it is.
    """

    def __init__(
        self, ranks: RankProcesses, *, machine: Machine, effort: Effort, folder: str, progress: HardwareProgress
    ) -> None:
        self._ranks, self._machine, self._effort = ranks, machine, effort
        self._folder, self._progress = folder, progress
        self._cuda = machine.device == "cuda"

    def measure(self, section: str) -> Section:
        """Measures a section of SECTIONS; `memory` must come before the others."""
        return _MEASURES[section](self)

    def _each(self, section: str, jobs: Sequence[_Job]) -> list[Point]:
        """The points of jobs, one after the other."""
        points = []
        for done, (title, function, arguments) in enumerate(jobs):
            self._progress.tell(section, title, done=done, total=len(jobs))
            points += of_all_ranks(self._ranks.run(function, *arguments))
        return points

    def memory(self) -> Section:
        """Tensors moved, and what a process takes."""
        process = self._ranks.run(process_gib, free_port())
        near, far = tensor_passes.pass_bytes(self._machine.cache_mib * _MIB, quick=self._effort.quick)
        sizes = {"in the cache": near, "past the cache": far}
        by_place = {
            where: self._each("memory", [(f"tensors {where}", tensor_passes.measure_passes, (of, self._effort))])
            for where, of in sizes.items()
            if of
        }
        host_copies = (
            self._each("memory", [("host to GPU", tensor_passes.measure_host_copies, (self._effort,))])
            if self._cuda
            else []
        )
        rate = {where: tensor_passes.gb_per_s(points) for where, points in by_place.items()}
        keys = {
            "process_gib": rounded(min(process)),  # what others hold of a GPU counts in the others
            "gb_per_s": rounded(rate["past the cache"]),
            "cache_gb_per_s": rounded(rate.get("in the cache", 0.0)),
            "host_gb_per_s": rounded(tensor_passes.gb_per_s(host_copies)),
        }
        points = [point for of in (*by_place.values(), host_copies) for point in of]
        return Section(points=points, keys={"memory": keys})

    def products(self) -> Section:
        """Matrix products."""
        matmul, fits, points = {}, [], []
        for number, precision in enumerate(MATMUL_TYPES):
            self._progress.tell("products", precision, done=number, total=len(MATMUL_TYPES))
            of = of_all_ranks(self._ranks.run(products.measure_products, precision, self._effort))
            matmul[precision], fit = products.fit_products(precision, of)
            fits.append(fit)
            points += [_renamed(point, f"{precision} {point.what}") for point in of]
        return Section(points=points, keys={"matmul": matmul}, fits=fits)

    def lookup(self) -> Section:
        """Table rows read and updated."""
        orders = table_access.tables_orders(
            cache_bytes=self._machine.cache_mib * _MIB,
            rank_bytes=self._machine.rank_bytes,
            device=self._machine.device,
            quick=self._effort.quick,
        )
        keys: dict[str, Any] = {"lookup_cached": None}
        total = sum(len(of) for of in orders.values())
        fits, points, done = [], [], 0
        for where, of in orders.items():
            found = []
            for order in of:
                title = f"{where} tables of dim {order.dim} under {order.rule}"
                self._progress.tell("lookup", title, done=done, total=total)
                found += of_all_ranks(self._ranks.run(table_access.measure_tables, order, self._effort))
                done += 1
            keys["lookup" if where == "far" else "lookup_cached"], fits_here = table_access.fit_lookup(
                found, where=f"{where} tables"
            )
            fits += fits_here
            points += [_renamed(point, f"{where} {point.what}") for point in found]
        return Section(points=points, keys=keys, fits=fits)

    def links(self) -> Section:
        """Collectives between the ranks of this host."""
        if self._machine.ranks == 1:
            return Section(
                points=[],
                keys={},
                remarks=["one rank has nobody on this host to talk with: intra_host is a copy of inter_host"],
            )
        job = ("collectives between the ranks", links.measure_collectives, (free_port(), self._effort))
        points = self._each("links", [job])
        link, fits = links.fit_link(points)
        return Section(points=points, keys={"intra_host": link}, fits=fits)

    def disk(self) -> Section:
        """The disk of the folder, and batches made of prepared rows."""
        file = storage.join(self._folder, "read")
        self._progress.tell("disk", "a file is written", done=0, total=3)
        prepared_rows.make_file(file, self._effort)
        jobs: list[_Job] = [
            ("the file is read", prepared_rows.read_file, (file,)),
            ("batches", prepared_rows.make_batches, (self._rows(),)),
        ]
        points = self._each("disk", jobs)
        storage.remove_file(file)
        keys = {
            "disk_gb_per_s": rounded(prepared_rows.disk_gb_per_s(points)),
            "disk_gib": float(round(shutil.disk_usage(self._folder).total / 2**30)),
            "batch_rows_per_s": rounded(prepared_rows.batch_rows_per_s(points)),
        }
        share = points[0].size["from_disk"]
        remarks = []
        if share < _COLD_SHARE:
            remarks.append(
                f"only {share:.0%} of the file came from the disk, the rest from the system's memory:"
                " host.disk_gb_per_s says nothing; give --folder on the disk that holds the data"
            )
        return Section(points=points, keys={"host": keys}, remarks=remarks)

    def overheads(self) -> Section:
        """Tiny steps."""
        rows = self._rows()
        layouts = tiny_steps.QUICK_LAYOUTS if self._effort.quick else tiny_steps.LAYOUTS
        arguments = (rows, self._folder, self._effort)
        jobs: list[_Job] = [("tensor operations", tiny_steps.measure_operations, (self._effort,))]
        for layout in layouts:
            title = f"a run of {layout.members} on {layout.tables} tables, {layout.placement}"
            jobs.append((title, tiny_steps.measure_steps, (layout, *arguments)))
        points = self._each("overheads", jobs)
        overheads, fits, remarks = tiny_steps.fit_overheads(points)
        return Section(points=points, keys={"overheads": overheads}, fits=fits, remarks=remarks)

    def _rows(self) -> str:
        root = storage.join(self._folder, "rows")
        if not os.path.isdir(root):
            prepared_rows.make_rows(root, self._effort)
        return root


_MEASURES: dict[str, Callable[[HardwareBench], Section]] = {
    "memory": HardwareBench.memory,
    "products": HardwareBench.products,
    "lookup": HardwareBench.lookup,
    "links": HardwareBench.links,
    "disk": HardwareBench.disk,
    "overheads": HardwareBench.overheads,
}
# Section -> about how long it takes, in seconds.
SECTIONS: Mapping[str, float] = {
    "memory": 14,
    "products": 22,
    "lookup": 80,
    "links": 6,
    "disk": 12,
    "overheads": 26,
}


def _renamed(point: Point, what: str) -> Point:
    return Point(what=what, size=point.size, seconds=point.seconds)
