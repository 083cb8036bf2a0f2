"""Serving: all members on one server against a server for each."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError, PlanError
from tests.support.planned_cases import MadeUpPlanner, machine, variant
from trainer.planning.plans import Budget, Plans
from trainer.planning.serving import check_request_rows, serving


def served(*words: str, mib: float = 64, rows: int = 100):
    planner = MadeUpPlanner()
    plans = Plans(planner, budget=Budget(max_plans=100, seconds=None))
    return serving(variant(*words), hardware=machine(mib), request_rows=rows, plans=plans), planner


def test_members_apart_and_together():
    found, planner = served()
    assert found["request_rows"] == 100
    assert list(found["members"]) == ["deep", "solo"]
    # 1 ms to look up, 0.2 ms to talk, 10 µs a row; batches come over the network.
    assert found["members"]["deep"] == pytest.approx(1e-3 + 2e-4 + 1e-3, rel=0.01)
    assert found["slowest_member"] == "deep" and found["members"]["deep"] > found["members"]["solo"]
    assert found["parallel_seconds"] == max(found["members"].values())
    assert (found["parallel_servers"], found["parallel_ranks"], found["one_server_ranks"]) == (3, 3, 1)
    assert [len(case.variant.config.expanded_members()) for case in planner.cases] == [1, 1, 3]
    assert {case.purpose for case in planner.cases} == {"score"}
    assert {case.variant.config.score.batch_size for case in planner.cases} == {100}


def test_a_server_has_as_many_ranks_as_its_tables_need():
    found, planner = served(mib=6, rows=99)
    assert found["member_ranks"] == {"deep": 1, "solo": 1}
    assert found["one_server_ranks"] == 4
    together = planner.cases[-1]
    assert together.variant.config.score.batch_size == 25  # of 4 ranks: 100 rows, the last of them empty
    assert found["one_server_bytes"] > 0


def test_no_host_holds_them():
    with pytest.raises(PlanError, match=r"^--serving: all members on one server: no part of a host of box"):
        served(mib=2.5, rows=1)


def test_remedies_are_those_that_are_left():
    with pytest.raises(PlanError, match='score.tables = "int8", take a smaller dim, put fewer members on a server'):
        served("--score.tables=fp16", mib=2.5, rows=1)
    with pytest.raises(PlanError) as found:
        served("--score.tables=int8", mib=2.5, rows=1)
    assert "int8" not in str(found.value) and "take a smaller dim, put fewer members on a server" in str(found.value)
    with pytest.raises(PlanError) as found:
        served(mib=0.2, rows=1)
    assert "member deep" in str(found.value) and "fewer members" not in str(found.value)


def test_keys_of_training_do_not_stand_in_the_way():
    words = ("--members.deep.freeze=true", "--train.watch.column=deep", "--loss.distillation=0.5")
    found, _ = served(*words)
    assert set(found["members"]) == {"deep", "solo"}


@pytest.mark.parametrize("rows", [0, -1])
def test_a_request_has_rows(rows):
    with pytest.raises(ConfigError, match="--request-rows"):
        check_request_rows(rows)
