"""Remedies: each is a change that the configuration takes, with the bytes it really saves."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.planned_cases import MIB, MadeUpPlanner, machine, variant
from trainer.planning.capacity_point import CapacityPoint, Refusal
from trainer.planning.data_facts import IdTraffic
from trainer.planning.plans import Budget, Plans, refused
from trainer.planning.remedies import Remedy, blame, nearest, remedies, short_memory
from trainer.planning.study import Case, StudiedPoint

ROWS = 60_010


def refused_point(
    *words: str, mib: float, world_size: int = 4, purpose="train", device="cuda", max_plans: int = 100
) -> tuple[StudiedPoint, Plans]:
    plans = Plans(MadeUpPlanner(), budget=Budget(max_plans=max_plans, seconds=None))
    box = machine(mib, device=device)
    case = Case(variant=variant(*words), hardware=box, purpose=purpose, world_size=world_size)
    point = plans.point(case)
    assert not point.fits
    return StudiedPoint(case=case, point=point, table_bytes=0), plans


def found_for(*words: str, most_ranks: int = 64, **sizes) -> dict[str, Remedy]:
    one, plans = refused_point(*words, **sizes)
    found = remedies(one, most_ranks=most_ranks, plans=plans)
    saved = [remedy.saves_bytes for remedy in found]
    assert saved == sorted(saved, reverse=True)
    return {remedy.change: remedy for remedy in found}


def test_each_saves_what_the_changed_run_takes_less():
    found = found_for(mib=5)  # a rank of 4 holds 5.5 MiB of 3 sets of tables, element-wise Adagrad
    group = ROWS * 64 / 4  # the weights, or the state, of a set of tables on a rank
    expected = {
        'members.solo.tables = "shared", for its 2 copies': 4 * group,
        'tables.own.optimizer = "rowwise_adagrad"': 2 * (group - ROWS),
        'tables.shared.optimizer = "rowwise_adagrad"': group - ROWS,
        "tables.own.dim = 8": 2 * group,
        "tables.shared.dim = 8": group,
        'tables.own.kernel = "uvm_caching"': 4 * group - 2 * group / 5,
        "members.solo.copies = 1": 2 * group,
        "--ranks 8": 3 * group,
    }
    for change, saves in expected.items():
        # Members' own parameters change a little with dim and copies.
        assert found[change].saves_bytes == pytest.approx(saves, abs=12_000), change
    assert set(expected) <= set(found)
    assert all(
        remedy.suffices and remedy.proof == "a plan"
        for change, remedy in found.items()
        if change in ('members.solo.tables = "shared", for its 2 copies', "--ranks 8", "tables.own.dim = 8")
    )


def test_what_does_not_suffice_alone_says_so():
    found = found_for(mib=3)
    assert not found['tables.shared.optimizer = "rowwise_adagrad"'].suffices
    assert found['tables.shared.optimizer = "rowwise_adagrad"'].proof == "the bytes alone"
    assert found['members.solo.tables = "shared", for its 2 copies'].suffices


def test_a_cpu_has_no_host_memory_beside():
    assert not any("kernel" in change for change in found_for(mib=5, device="cpu"))


def test_scoring_has_no_optimizer_to_change():
    found = found_for(mib=2.5, purpose="score")
    assert not any("optimizer" in change for change in found)
    int8 = found_for(mib=2.5, purpose="score", world_size=1)['score.tables = "int8"']
    assert int8.saves_bytes == 3 * ROWS * 32
    # On four ranks every one would hold all of them, which saves nothing.
    assert 'score.tables = "int8"' not in found


def test_sharding_quantised_tables_is_one():
    found = found_for("--score.tables=fp16", mib=4.5, purpose="score")
    assert found['score.tables = "sharded"'].suffices


def test_tables_tied_to_a_rank_are_told_to_spread():
    both = found_for("--tables.own.placement=table_wise", "--tables.shared.placement=table_wise", mib=5, world_size=16)
    assert 'tables.own.placement = "row_wise"' not in both  # saves nothing alone: the other group's is as large
    assert both['tables.shared.placement = "row_wise", tables.own.placement = "row_wise"'].suffices
    one_tied = found_for("--tables.own.placement=table_wise", mib=5, world_size=16)
    assert one_tied['tables.own.placement = "row_wise"'].suffices


def test_a_feature_tied_to_a_rank_is_told_to_spread():
    found = found_for('--tables.own.features.C1.placement="table_wise"', mib=5, world_size=16)
    assert found['tables.own.features.C1.placement = "row_wise"'].suffices


def test_replicas_are_told_to_spread():
    found = found_for("--tables.own.placement=data_parallel", mib=12)
    assert found['tables.own.placement = "row_wise"'].suffices


def test_own_dims_and_kept_best_weights_are_found():
    early = ("--train.early_stop.evaluations=2", "--train.evaluate_every={steps = 9}")
    assert found_for(*early, mib=5)["train.early_stop removed"].saves_bytes == pytest.approx(
        3 * ROWS * 64 / 4, abs=9000
    )
    found = found_for("--members.solo.dim=32", mib=8)
    assert found["members.solo.dim = 16"].saves_bytes > found["tables.shared.dim = 8"].saves_bytes
    assert found['members.solo.tables = "shared", for its 2 copies'].suffices  # its dim goes with its own tables


def test_the_batch_is_halved_until_it_fits():
    one, plans = refused_point("--train.batch_size=16384", mib=14, world_size=4)
    assert one.point.held  # it was planned: the bytes alone would fit
    found = {remedy.change: remedy for remedy in remedies(one, most_ranks=4, plans=plans)}
    batch = found["train.batch_size = 4096"]
    assert batch.suffices and batch.proof == "a plan"
    assert batch.saves_bytes == 4096 * (16384 - 4096) // 4
    assert not any(change.startswith("--ranks") for change in found)


def test_copies_are_as_many_as_fit():
    found = found_for("--members.solo.copies=9", mib=10)
    assert found["members.solo.copies = 3"].suffices
    tight = found_for("--members.solo.copies=8", mib=2)
    assert not tight["members.solo.copies = 4"].suffices  # nothing fits; half of them


def test_it_ends_with_the_plans():
    one, plans = refused_point(mib=5, max_plans=2)
    proofs = [remedy.proof for remedy in remedies(one, most_ranks=64, plans=plans) if remedy.suffices]
    assert proofs.count("a plan") == 2 and "the bytes alone; no plan was left to see" in proofs


def test_the_nearest_has_the_most_memory():
    points = [refused_point(mib=mib, world_size=ranks)[0] for mib, ranks in ((5, 1), (4, 4), (5, 2))]
    assert nearest(points) is points[1]
    assert points[1].case.hardware.rank_bytes == 4 * MIB


def test_a_replica_s_nearest_has_the_most_memory_a_rank():
    found = [
        refused_point("--score.tables=int8", mib=1, world_size=ranks, purpose="score", device="cpu")[0]
        for ranks in (4, 2, 1)
    ]
    assert nearest(found) is found[2]
    on_gpus = [refused_point("--score.tables=int8", mib=4, world_size=ranks, purpose="score")[0] for ranks in (8, 1)]
    assert nearest(on_gpus) is on_gpus[1]


def test_the_copy_of_checkpoints_is_a_remedy_on_cpu_hosts():
    found = found_for(mib=10, device="cpu")
    copy = 3 * ROWS * 128 / 4
    assert found["checkpoint.background = false"].saves_bytes == pytest.approx(copy, abs=12_000)
    assert found["checkpoint.background = false"].suffices
    assert "checkpoint.background = false" not in found_for("--checkpoint.background=false", mib=5, device="cpu")
    assert "checkpoint.background = false" not in found_for(mib=5)  # a GPU's memory has no copy


def test_a_host_that_lacks_memory_is_told_what_saves_it_there():
    words = ("--tables.shared.kernel=uvm_caching", "--tables.own.kernel=uvm_caching")
    config = variant(*words)
    box = machine(64)
    poor = machine(64, host=type(box.host)(ranks=4, memory_gib=4 * 10 / 1024))  # 5.5 MiB of tables a rank, and a copy
    plans = Plans(MadeUpPlanner(), budget=Budget(max_plans=100, seconds=None))
    case = Case(variant=config, hardware=poor, purpose="train", world_size=4)
    one = StudiedPoint(case=case, point=plans.point(case), table_bytes=0)
    assert one.point.refusal is not None and one.point.refusal.where == "host" and short_memory(one) == "host"
    found = {remedy.change: remedy for remedy in remedies(one, most_ranks=4, plans=plans)}
    waiting = found["checkpoint.background = false"]
    assert waiting.saves_bytes == pytest.approx(3 * ROWS * 128 / 4, abs=12_000)
    assert waiting.suffices and waiting.proof == "a plan"


def test_crumbs_are_no_remedies_and_long_bags_are_named():
    """Ids of a bag that no memory holds: nothing that tables could save is worth telling."""
    whole = variant("--train.batch_size=4096")
    traffic = {**whole.data.traffic, "C2": IdTraffic(mean_ids=1e9)}
    bags = dataclasses.replace(whole, data=dataclasses.replace(whole.data, traffic=traffic))
    case = Case(variant=bags, hardware=machine(64), purpose="train", world_size=4)

    def planned(case: Case) -> CapacityPoint:
        refusal = Refusal(where="planner", need_bytes=10**13, capacity_bytes=case.hardware.rank_bytes, sentence="full")
        return refused(case, refusal)

    plans = Plans(planned, budget=Budget(max_plans=100, seconds=None))
    one = StudiedPoint(case=case, point=plans.point(case), table_bytes=0)
    assert remedies(one, most_ranks=64, plans=plans) == []
    assert plans.num_plans < 8  # of crumbs none is planned
    told = blame(one, plans=plans)
    assert told is not None and "feature C2 has mean_ids = 1e+09" in told and "train.batch_size" in told
    short, of_others = refused_point(mib=5)
    assert blame(short, plans=of_others) is None
