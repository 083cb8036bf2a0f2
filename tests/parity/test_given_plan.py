"""A run under a given plan is the run that wrote it, bit for bit; and what the file says is what is carried out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.schema import RunConfig
from sharding.shards import table_shards
from tests.support.runs import small_run
from tests.support.state import assert_bit_equal
from tests.support.training import step_by_hand
from trainer.assembly import assemble_training
from trainer.runtime import Runtime

NUM_STEPS = 4
KINDS = ("row_wise", "table_wise", "data_parallel", "column_wise", "table_row_wise", "table_column_wise", "grid")
PLACED = {f"C{number}": KINDS[number % len(KINDS)] for number in range(1, 27)}
EVERY_KIND = (
    *(f"--tables.{group}.dim=8" for group in ("shared", "own")),
    *(f"--tables.{group}.optimizer=adagrad" for group in ("shared", "own")),
    *(
        f"--tables.{group}.features.{feature}.placement={kind}"
        for group in ("shared", "own")
        for feature, kind in PLACED.items()
    ),
)

Shards = dict[str, list[tuple[int, int, int, int]]]


def laid_out(runtime: Runtime, config: RunConfig, folder: str) -> tuple[dict[str, Any], Shards]:
    """The plan as plan.json has it, and table -> (first row, first column, rows, columns) of what this rank holds."""
    assembled = assemble_training(config, folder=folder, runtime=runtime)
    tables = table_shards(assembled.training.model.state_dict())
    return assembled.plan, {
        table: sorted((shard.first_row, shard.first_column, *shard.tensor.shape) for shard in shards.local)
        for table, shards in tables.items()
        if not shards.replicated
    }


def said_by(plan: dict[str, Any], *, rank: int) -> Shards:
    return {
        table: sorted((*s["offsets"], *s["sizes"]) for s in placed["shards"] if s["rank"] == rank)
        for table, placed in plan["tables"].items()
        if placed["shards"]
    }


def saved(tmp_path: Path, body: dict[str, Any]) -> str:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(body))
    return f"--run.plan={path}"


def test_the_same_placement_and_the_same_weights(ranks, tmp_path):
    config = small_run(*EVERY_KIND)
    planned, _ = ranks(2).run(laid_out, config, str(tmp_path))[0]
    assert len({placed["sharding_type"] for placed in planned["tables"].values()}) == len(KINDS)
    given_config = small_run(*EVERY_KIND, saved(tmp_path, planned))
    for rank, (given, held) in enumerate(ranks(2).run(laid_out, given_config, str(tmp_path))):
        assert given == planned
        assert held == said_by(planned, rank=rank)
    own, under_the_file = (
        ranks(2).run(step_by_hand, run, str(tmp_path), NUM_STEPS)[0] for run in (config, given_config)
    )
    assert_bit_equal(own.start, under_the_file.start)
    assert_bit_equal(own.end, under_the_file.end)
    assert any((own.start[key] != own.end[key]).any() for key in own.start)


def test_an_edited_plan_is_carried_out(ranks, tmp_path):
    whole = ("--tables.shared.placement=table_wise", "--tables.own.placement=table_wise")
    planned, _ = ranks(2).run(laid_out, small_run(*whole), str(tmp_path))[0]
    edited = json.loads(json.dumps(planned))
    del edited["fingerprint"]
    for placed in edited["tables"].values():
        placed["ranks"] = [1 - rank for rank in placed["ranks"]]
        for shard in placed["shards"]:
            shard["rank"] = 1 - shard["rank"]
    config = small_run(*whole, saved(tmp_path, edited))
    for rank, (given, held) in enumerate(ranks(2).run(laid_out, config, str(tmp_path))):
        assert given["tables"] == edited["tables"] != planned["tables"]
        assert held == said_by(planned, rank=1 - rank)
    own, under_the_file = (
        ranks(2).run(step_by_hand, run, str(tmp_path), NUM_STEPS)[0] for run in (small_run(*whole), config)
    )
    assert_bit_equal(own.end, under_the_file.end)


def refused(runtime: Runtime, config: RunConfig, folder: str) -> str:
    """The sentence, which every rank gets."""
    with pytest.raises(ConfigError) as error:
        assemble_training(config, folder=folder, runtime=runtime)
    return str(error.value)


def test_every_rank_is_told_what_differs(ranks, tmp_path):
    config = small_run("--tables.shared.placement=row_wise", "--tables.own.placement=row_wise")
    (planned, _), *_ = ranks(1).run(laid_out, config, str(tmp_path))
    argument = saved(tmp_path, planned)
    other_world = ranks(2).run(refused, small_run(argument), str(tmp_path))
    assert other_world == 2 * [
        f"run.plan: {argument.partition('=')[2]} was made for 1 rank(s), this job has 2; start as many,"
        " or leave run.plan empty to plan anew"
    ]
    nowhere = ranks(2).run(refused, small_run("--run.plan=nowhere.json"), str(tmp_path))
    assert nowhere == 2 * [
        "run.plan: 'nowhere.json' is not a file; name the plan.json of a run's folder or checkpoint, or leave it"
        " empty to plan anew"
    ]
