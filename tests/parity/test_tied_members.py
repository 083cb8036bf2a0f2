"""Members tied by their losses: over ranks the gradient is that of one process with the whole batch."""

from __future__ import annotations

import numpy as np
import pytest

from modules.losses import MemberLosses
from modules.task import EnsembleTask
from tests.support.runs import placed, small_run
from tests.support.training import step_by_hand
from tests.unit.modules.small import FEATURES, NUM_DENSE, NUM_FEATURES, TABLE_ROWS, deepfm, ensemble, mlp
from trainer.data.reading.batch import Rows, make_batch

NUM_ROWS, RANK_ROWS = 21, 16  # the first rank has 16 rows, the second 5 and 11 of padding
TIES = [
    {"distillation": 1.0},
    {"mutual": 1.0},
    {"merged_share": 0.3, "distillation": 0.5, "mutual": 2.0, "bag_seeds": {0: 5, 2: 6}},
]


def _gradients(runtime, ties, *, num_ranks, alone):
    """Of this rank's slice, by parameter; `alone`: the ranks are not asked for the scores."""
    random = np.random.default_rng(3)
    rank = runtime.rank if num_ranks > 1 else 0
    mine = slice(rank * RANK_ROWS, (rank + 1) * RANK_ROWS) if num_ranks > 1 else slice(NUM_ROWS)
    rows = Rows.of_single_ids(
        random.integers(0, TABLE_ROWS, (NUM_ROWS, NUM_FEATURES)).astype(np.int32)[mine],
        dense=random.normal(size=(NUM_ROWS, NUM_DENSE)).astype(np.float32)[mine],
        labels=(np.arange(NUM_ROWS) >= RANK_ROWS).astype(np.float32)[mine],  # so that the slices' scores differ
        part=np.ones(NUM_ROWS, dtype=np.int32)[mine],
        row=np.arange(700, 700 + NUM_ROWS)[mine],
    )
    batch = make_batch(
        rows,
        keys=FEATURES,
        num_rows=RANK_ROWS if num_ranks > 1 else NUM_ROWS,
        loss_weight=num_ranks / NUM_ROWS,
    )

    def mean_over_ranks(values):
        return values if num_ranks == 1 or alone else runtime.sum(values.clone()) / num_ranks

    members = {"deep": mlp(seed=1), "fm": deepfm(seed=2), "wide": mlp(seed=3)}
    for scale, member in enumerate(members.values(), start=1):
        for parameter in member.parameters():
            parameter.data *= 0.7 + 0.4 * scale  # members of unlike quality
    built = ensemble(members, groups={"deep": "shared", "fm": "shared", "wide": "wide"})
    task = EnsembleTask(built, losses=MemberLosses(**ties, mean_over_ranks=mean_over_ranks))
    task.begin_step(step=0, rank=rank)
    loss, _ = task(batch)
    loss.backward()
    found = {name: p.grad.numpy() for name, p in task.named_parameters() if p.grad is not None}
    return found | {"total": loss.detach().numpy()}


def _over_ranks(runtime, ties, alone=False):
    return _gradients(runtime, ties, num_ranks=runtime.world_size, alone=alone)


def _in_one_process(runtime, ties):
    return _gradients(runtime, ties, num_ranks=1, alone=True)


def _mean(of_ranks):
    return {key: np.mean([of_rank[key] for of_rank in of_ranks], axis=0) for key in of_ranks[0]}


@pytest.mark.parametrize("ties", TIES, ids=["distillation", "mutual", "all"])
def test_tied_members_gradients_do_not_depend_on_the_ranks(ranks, ties):
    pool = ranks(2)
    expected = pool.run(_in_one_process, ties)[0]
    found = _mean(pool.run(_over_ranks, ties))
    assert found.keys() == expected.keys() and len(found) > 15
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-5, atol=1e-6, err_msg=key)


def test_scores_of_a_ranks_own_rows_would_show(ranks):
    pool = ranks(2)
    ties = TIES[0]
    expected = pool.run(_in_one_process, ties)[0]
    found = _mean(pool.run(_over_ranks, ties, True))
    assert max(np.abs(found[key] - value).max() for key, value in expected.items()) > 1e-3


@pytest.mark.parametrize("placement", ["data_parallel", "row_wise"])
def test_a_run_with_ties_and_bags_is_the_same_on_any_number_of_ranks(ranks, tmp_path, placement):
    words = ("--loss.merged_share=0.3", "--loss.distillation=1", "--loss.mutual=1", "--members.deep.bagging=poisson")
    tied, plain = small_run(*placed(placement), *words), small_run(*placed(placement))
    alone = ranks(1).run(step_by_hand, tied, f"{tmp_path}/1", 5)[0]
    together = ranks(2).run(step_by_hand, tied, f"{tmp_path}/2", 5)[0]
    np.testing.assert_allclose(together.losses, alone.losses, rtol=1e-5)
    assert together.end.keys() == alone.end.keys()
    for key, value in alone.end.items():
        np.testing.assert_allclose(together.end[key], value, atol=1e-5, rtol=1e-4, err_msg=key)
    untied = ranks(1).run(step_by_hand, plain, f"{tmp_path}/plain", 5)[0]
    weights = [key for key in untied.end if key.startswith("model/")]
    assert all((untied.start[key] == alone.start[key]).all() for key in weights)
    assert any(np.abs(untied.end[key] - alone.end[key]).max() > 1e-2 for key in weights)
