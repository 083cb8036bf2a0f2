"""StudyPoint: a run of a capacity study, predicted and measured, from the study's file alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from configs.hardware_schema import Calibration, HardwareFile
from trainer import storage
from trainer.analysis.plan_comparison.comparison import check_device, grown_bytes
from trainer.analysis.plan_comparison.prediction import PastRun, facts_of_json, predicted, run_config
from trainer.analysis.plan_comparison.run_usage import RunUsage, usage_of
from trainer.checkpoints.manifest import PLAN_NAME
from trainer.planning.capacity_point import CapacityPoint

_BUFFERS = ("id_buffers", "embedding_buffers")


@dataclass(frozen=True, kw_only=True)
class StudyPoint:
    """One run."""

    key: str
    use: str
    words: str
    past: PastRun
    usage: RunUsage
    point: CapacityPoint
    grown: tuple[int, ...]  # predicted growth of each rank's memory

    @property
    def activations(self) -> int:
        """Predicted bytes of the rank that grows most."""
        return self.point.held["activations"][self.fullest]

    @property
    def buffers(self) -> dict[str, float]:
        """Those of ids and embeddings on that rank, by the factor that a calibration has for them."""
        assert self.point.plan is not None
        of_rank = float(sum(self.point.held[kind][self.fullest] for kind in _BUFFERS if kind in self.point.held))
        if self.point.world_size == 1:
            return {"alone": of_rank, "exchanged": 0.0, "row_wise": 0.0}
        share = self.point.plan["report"]["row_wise_share"]
        return {"alone": 0.0, "exchanged": (1 - share) * of_rank, "row_wise": share * of_rank}

    @property
    def fullest(self) -> int:
        """The rank that is predicted to grow most."""
        return self.grown.index(max(self.grown))

    @property
    def step_error(self) -> float:
        """|predicted / measured - 1| of a step's time."""
        assert self.point.step is not None
        return abs(self.point.step.total / self.usage.step_seconds - 1.0)

    @property
    def growth_error(self) -> float:
        """|predicted / measured - 1| of the growth of memory."""
        return abs(max(self.grown) / max(self.usage.growth_bytes) - 1.0)

    @property
    def bytes_are_exact(self) -> bool:
        """Whether tables and their optimizer state are, on every rank, what was predicted."""
        none = (0,) * self.usage.world_size
        return all(
            self.point.held.get(kind, none) == self.usage.allocated[kind]
            for kind in ("table_weights", "table_optimizer")
        )


def uncalibrated(hardware: HardwareFile) -> HardwareFile:
    """The same machine, as if no run had ever been measured on it."""
    return replace(hardware, calibration=Calibration())


def study_points(
    body: Mapping[str, Any], *, hardware: HardwareFile, use: str | None = None, say: Callable[[str], None]
) -> list[StudyPoint]:
    """Every run that was measured, predicted with its own plan.

    Args:
        body: What the study's file holds.
        hardware: The machine.
        use: Only the runs of this use; None: all.
        say: Told how far it is.

    Raises:
        ChorusError: the hardware is of another device, or a run's figures cannot be used.
    """
    runs = {key: run for key, run in body["runs"].items() if use in (None, run["case"]["use"])}
    found = []
    for done, (key, run) in enumerate(runs.items(), start=1):
        usage = usage_of(run["usage"], source=key)
        check_device(usage, hardware=hardware)
        past = PastRun(
            config=run_config(run["config"], source=key),
            data=facts_of_json(body["data"][str(run["case"]["batch_size"])]),
        )
        with tempfile.TemporaryDirectory() as folder:
            storage.write_text(storage.join(folder, PLAN_NAME), json.dumps(run["plan"]))
            point = predicted(past, usage, folder=folder, hardware=hardware)
        grown = grown_bytes(point, config=past.config, data=past.data, hardware=hardware)
        found.append(
            StudyPoint(
                key=key,
                use=run["case"]["use"],
                words=f"{run['words']}; {run['ranks']} rank(s)",
                past=past,
                usage=usage,
                point=point,
                grown=grown,
            )
        )
        if done % 10 == 0 or done == len(runs):
            say(f"predicted {done} of {len(runs)} runs")
    return found
