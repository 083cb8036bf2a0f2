"""The survey: smallest worlds that fit and are in time, what is left out and said to be."""

from __future__ import annotations

import dataclasses

import pytest

from configs.errors import ConfigError
from tests.support.planned_cases import MadeUpPlanner, machine, variant
from trainer.planning.plans import Budget, Plans
from trainer.planning.search import Range, Survey, check_sizes, world_sizes
from trainer.planning.study import Asked, Study, Variant

ENSEMBLE = variant()


def surveyed(
    box,
    *,
    ranks: tuple[int, ...] = (),
    most: int = 64,
    hours: float | None = None,
    variants: tuple[Variant, ...] = (ENSEMBLE,),
    planner=None,
    max_plans: int = 100,
    climbs: bool | None = None,
    swept=None,
) -> Study:
    boxes = box if isinstance(box, tuple) else (box,)
    asked = Asked(
        command="", config="planned", hardware=boxes, purposes=("train",), epoch_hours=hours, swept=swept or {}
    )
    study = Study(asked=asked, data=variants[0].data)
    plans = Plans(planner or MadeUpPlanner(), budget=Budget(max_plans=max_plans, seconds=None))
    sizes = Range(ranks=ranks, most=most, climbs=not ranks if climbs is None else climbs)
    Survey(study, plans=plans, sizes=sizes).run(variants)
    return study


def sizes(study: Study) -> list[tuple[int, bool]]:
    return [(one.point.world_size, one.point.fits) for one in study.points]


def test_world_sizes_are_parts_of_a_host_and_whole_hosts():
    assert list(world_sizes(machine(1, ranks=8), most=40)) == [1, 2, 4, 8, 16, 24, 32, 40]
    assert list(world_sizes(machine(1, ranks=6), most=17, least=3)) == [4, 6, 12]
    assert list(world_sizes(machine(1, ranks=8), most=4)) == [1, 2, 4]


def test_named_sizes_are_all_looked_at():
    study = surveyed(machine(6), ranks=(1, 2, 4, 8))
    assert sizes(study) == [(1, False), (2, False), (4, False), (8, True)]
    assert not study.notes
    assert {one.table_bytes for one in study.points} == {3 * 60_010 * 128}


def test_it_climbs_from_what_the_bytes_allow():
    planner = MadeUpPlanner()
    study = surveyed(machine(6), planner=planner)
    # Ranks 1 to 4 are out by the bytes; the largest of them says why.
    assert sizes(study) == [(4, False), (8, True)]
    assert [case.world_size for case in planner.cases if not case.host_memory] == [8]
    assert "the bytes alone rule out up to 4 ranks" in study.notes[0]


def test_what_host_memory_would_do_is_noted():
    planner = MadeUpPlanner()
    study = surveyed(machine(6), planner=planner)
    assert [case.world_size for case in planner.cases if case.host_memory] == [4]  # the largest that was refused
    assert all(not one.case.host_memory for one in study.points)
    assert study.notes[-1].startswith(
        "box (train): 4 GPUs would hold it with tables in host memory"
        ' (tables.shared.kernel = "uvm_caching", tables.own.kernel = "uvm_caching"):'
    )
    assert "rows/s" in study.notes[-1]
    # One group's kernel is given: it is not said to change.
    fused = surveyed(machine(6), variants=(variant("--tables.own.kernel=fused"),))
    assert '(tables.shared.kernel = "uvm_caching")' in fused.notes[-1]


@pytest.mark.parametrize(
    ("box", "words"),
    [(machine(6), ("--tables.own.kernel=fused", "--tables.shared.kernel=fused")), (machine(2, device="cpu"), ())],
)
def test_host_memory_is_not_asked_where_it_cannot_help(box, words):
    planner = MadeUpPlanner()
    study = surveyed(box, variants=(variant(*words),), planner=planner)
    assert not study.points[0].point.fits
    assert not any(case.host_memory for case in planner.cases)
    assert not any("host memory" in note for note in study.notes)


def test_host_memory_that_is_too_small_is_said():
    box = machine(6, host=type(machine(6).host)(ranks=4, memory_gib=24 / 1024))
    study = surveyed(box)
    assert "4 GPUs would not hold it with tables in host memory" in study.notes[-1]


def test_host_memory_costs_a_plan_of_the_budget():
    study = surveyed(machine(6), max_plans=1)
    assert study.fits("train")
    assert "more with --max-plans: not seen whether 4 GPUs would do with host memory" in study.notes[-1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_more_ranks_are_not_tried_where_each_holds_all_tables(device):
    quantised = variant("--score.tables=int8")
    planner = MadeUpPlanner()
    of_machine = 4 if device == "cuda" else 0.9  # a CPU host's rank alone has the memory of four
    asked = Asked(
        command="",
        config="planned",
        hardware=(machine(of_machine, device=device),),
        purposes=("score",),
        epoch_hours=None,
        swept={},
    )
    study = Study(asked=asked, data=ENSEMBLE.data)
    plans = Plans(planner, budget=Budget(max_plans=100, seconds=None))
    Survey(study, plans=plans, sizes=Range(ranks=(), most=64, climbs=True)).run([quantised])
    assert sizes(study) == [(1, False)]
    refusal = study.points[0].point.refusal
    assert refusal is not None and "every rank holds all tables: more ranks do not help" in refusal.sentence
    assert len(study.notes) == 1 and 'score.tables = "sharded", a smaller dim' in study.notes[0]


def test_it_climbs_in_whole_hosts_past_what_the_bytes_allow():
    """The byte sum allows 2, and buffers of the batch take more than is left."""

    planner = MadeUpPlanner()
    wide = variant("--train.batch_size=16384")
    study = surveyed(machine(14), variants=(wide,), planner=planner)
    assert sizes(study) == [(1, False), (2, False), (4, False), (8, True)]
    assert [case.world_size for case in planner.cases if not case.host_memory] == [2, 4, 8]


def test_named_sizes_and_climbing_join():
    study = surveyed(machine(6), ranks=(16,), climbs=True)
    assert (8, True) in sizes(study) and (16, True) in sizes(study)
    assert study.chosen("train")["smallest"].point.world_size == 8


def test_it_says_where_it_ended():
    study = surveyed(machine(1), most=8)
    assert sizes(study) == [(8, False)]
    assert any("rule out up to 8 ranks" in note for note in study.notes)
    assert any("more than 8 ranks were not tried (--max-ranks)" in note for note in study.notes)


def test_the_deadline_is_met_by_the_smallest_that_meets_it():
    box = machine(64)
    study = surveyed(box, hours=0.003)
    chosen = study.chosen("train")
    assert chosen["smallest"].point.world_size == 1
    late = [one.point for one in study.points if one.point.hours > 0.003]
    assert chosen["deadline"].point.hours <= 0.003
    assert max(point.world_size for point in late) < chosen["deadline"].point.world_size
    # No smaller size would have been in time.
    everything = surveyed(box, ranks=tuple(world_sizes(box, most=16)), hours=0.003)
    assert everything.chosen("train")["deadline"].point.world_size == chosen["deadline"].point.world_size


def test_a_deadline_out_of_reach_is_given_up():
    study = surveyed(machine(64), hours=1e-6, most=16)
    assert study.chosen("train")["deadline"] is None
    assert any("1e-06 hours are out of reach: more than 16 ranks" in note for note in study.notes)
    assert any("5 sizes of 2 to 16 ranks passed over" in note for note in study.notes)


def test_worlds_that_are_no_faster_end_the_search():
    class Slowing(MadeUpPlanner):
        def __call__(self, case):
            point = super().__call__(case)
            return dataclasses.replace(point, hours=1.0 + case.world_size / 10)

    planner = Slowing()
    study = surveyed(machine(64), hours=0.5, planner=planner, most=1000)
    assert len(planner.cases) == 5
    assert any("4 larger worlds in a row were no faster" in note for note in study.notes)


def test_what_was_not_begun_is_counted():
    variants = tuple(
        dataclasses.replace(variant(f"--members.solo.copies={copies}"), swept={"copies": copies})
        for copies in (1, 2, 3)
    )
    study = surveyed(machine(64), ranks=(1, 2), variants=variants, max_plans=3, swept={"copies": (1, 2, 3)})
    assert len(study.points) == 3
    assert study.notes == [
        "stopped after 3 plans; more with --max-plans: box (train, copies = 2) is not finished; 1 further combination"
        " not begun"
    ]


def test_ctrl_c_keeps_what_is_there():
    class Stopped(MadeUpPlanner):
        def __call__(self, case):
            if len(self.cases) == 2:
                raise KeyboardInterrupt
            return super().__call__(case)

    asked = Asked(
        command="", config="planned", hardware=(machine(64),), purposes=("train",), epoch_hours=None, swept={}
    )
    study = Study(asked=asked, data=ENSEMBLE.data)
    survey = Survey(
        study,
        plans=Plans(Stopped(), budget=Budget(max_plans=9, seconds=None)),
        sizes=Range(ranks=(1, 2, 4), most=8),
    )
    with pytest.raises(KeyboardInterrupt):
        survey.run([ENSEMBLE])
    assert sizes(study) == [(1, True), (2, True)]
    assert "stopped by Ctrl-C" in study.notes[0]


def test_a_placement_that_cannot_be_had_ends_a_study_of_one_and_not_a_sweep():
    def planned(case):
        raise ConfigError("tables.own: kernel 'uvm' is for GPU hosts")

    box = machine(64)
    with pytest.raises(ConfigError):
        surveyed(box, ranks=(1,), planner=planned)
    study = surveyed(
        (box, machine(64, name="other")), ranks=(1,), planner=planned, swept={"hardware": ["box", "other"]}
    )
    assert [one.point.refusal.where for one in study.points] == ["placement", "placement"]


@pytest.mark.parametrize("ranks", [0, -8])
def test_no_ranks_are_refused(ranks):
    with pytest.raises(ConfigError, match=r"--ranks: .* give 1 or more"):
        check_sizes([ranks], hardware=[machine(1)])


def test_ranks_that_do_not_fill_hosts_are_refused():
    check_sizes([1, 3, 8, 16], hardware=[machine(1, ranks=8)])
    with pytest.raises(ConfigError, match=r"12 ranks of box do not fill hosts of 8; take 8 or 16"):
        check_sizes([12], hardware=[machine(1, ranks=8)])
