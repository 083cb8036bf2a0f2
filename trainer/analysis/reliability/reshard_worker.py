"""What the ranks of the matrix do: train and save, load what others saved and save it again, train on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from configs.errors import ChorusError
from configs.schema import RunConfig
from trainer import storage
from trainer.analysis.reliability.reshard_layouts import MORE_STEPS, RANKS_PER_HOST, STEPS, Layout, matrix_run
from trainer.assembly import assemble_training
from trainer.built_task import build_task
from trainer.checkpoints.pieces import Pieces, State
from trainer.checkpoints.run_checkpoints import RunCheckpoints
from trainer.launcher import ProcessPlace
from trainer.loop import train
from trainer.reporting import Reporter
from trainer.restoring import LiveState, restore
from trainer.runtime import Runtime
from trainer.votes import Ranks


class _OneSideGroup(Runtime):
    """A runtime that hands out one side group again and again: these ranks assemble some hundred runs."""

    _side: Ranks | None = None

    def open_side_group(self) -> Ranks:
        """The first one; nothing here is written in the background."""
        if self._side is None:
            self._side = super().open_side_group()
        return self._side


def serve(path: str) -> None:
    """Does the tasks of a file, one after the other. All ranks must call this, before anything has looked at them.

    A task is {do: save | load | continue, rule, layout, folder, sources}. After each, or each source of a load, rank 0
    appends a line {task, source, refused} to the file of results.
    """
    place = ProcessPlace.from_environment()
    os.environ["LOCAL_RANK"] = str(place.rank % RANKS_PER_HOST)
    os.environ["LOCAL_WORLD_SIZE"] = str(min(RANKS_PER_HOST, place.world_size))
    body = storage.read_json(path)
    first = body["tasks"][0]
    run = matrix_run(first["rule"], Layout.named(first["layout"])).run
    with _OneSideGroup(run) as runtime:
        for number, task in enumerate(body["tasks"]):
            layout = Layout.named(task["layout"])

            def note(source: str, refused: str, number: int = number) -> None:
                if runtime.is_main:
                    with storage.open_file(body["results"], "a") as file:
                        file.write(json.dumps({"task": number, "source": source, "refused": refused}) + "\n")

            if task["do"] == "load":
                _load_all(task, layout=layout, note=note, runtime=runtime)
            else:
                _train(task, layout=layout, note=note, runtime=runtime)


def _train(task: Mapping[str, Any], *, layout: Layout, note: Any, runtime: Runtime) -> None:
    """A run from its start, or from another's checkpoint, to a checkpoint of its own."""
    words = [f"--run.folder={task['folder']}", f"--train.until={{steps = {STEPS}}}"]
    source = ""
    if task["do"] == "continue":
        (source, checkpoint), *_ = task["sources"].items()
        words = [words[0], f"--train.until={{steps = {STEPS + MORE_STEPS}}}", f"--checkpoint.resume={checkpoint}"]
    config = matrix_run(task["rule"], layout, *words)
    try:
        runtime.from_main(lambda: storage.make_folder(task["folder"]))
        assembled = assemble_training(config, folder=task["folder"], runtime=runtime)
        training = assembled.training
        reporter = Reporter(folder=task["folder"], resumed_step=training.progress.step, runtime=runtime)
        train(training, config=config, reporter=reporter, runtime=runtime)
        reporter.close()
    except ChorusError as error:
        note(source, str(error))
    else:
        note(source, "")


def _load_all(task: Mapping[str, Any], *, layout: Layout, note: Any, runtime: Runtime) -> None:
    """Assembles once, and loads one checkpoint after the other into it, each saved again from there."""
    config = matrix_run(task["rule"], layout, f"--run.folder={task['folder']}")
    assembled = assemble_training(config, folder=task["folder"], runtime=runtime)
    facts = build_task(config, features=assembled.sources.train.features).facts
    ranks = runtime.open_side_group()
    for source, checkpoint in task["sources"].items():
        snapshot = assembled.training.snapshot(None)
        pieces, data = snapshot.facts["column_pieces"], snapshot.facts["data"]
        state = LiveState(tensors=snapshot.state, column_pieces=pieces, facts=facts, data=data)
        spoil(snapshot.state)
        folder = storage.join(task["folder"], source)
        wish: RunConfig = matrix_run(
            task["rule"], layout, f"--run.folder={folder}", f"--checkpoint.resume={checkpoint}"
        )
        checkpoints = RunCheckpoints(folder=folder, section=wish.checkpoint, ranks=ranks)
        try:
            restore(wish, state=state, run_checkpoints=checkpoints, ranks=ranks, say=lambda _text: None)
        except ChorusError as error:
            note(source, str(error))
            continue
        checkpoints.save(assembled.training.snapshot(None))
        note(source, "")


@torch.no_grad()
def spoil(state: State) -> None:
    """Overwrites all live values, so that what a load leaves out is seen."""
    for value in state.values():
        for tensor in value.parts.values() if isinstance(value, Pieces) else (value,):
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
