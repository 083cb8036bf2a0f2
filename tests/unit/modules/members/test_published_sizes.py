"""Dense parameters at the published settings of frappe_x1, against the totals that the published logs print.

Source: BARS (github.com/reczoo/BARS, ranking/ctr), FuxiCTR 1.x: 10 fields of 5,389 ids in all, embeddings of 10
columns, networks of 400, 400 and 400. A total has the embeddings in it and, in models with first-order weights, one for
each id.
"""

from __future__ import annotations

from typing import Any

import pytest

from modules import members

NUM_IDS, NUM_FIELDS, DIM = 5389, 10, 10
DEEP: dict[str, Any] = {"hidden": (400, 400, 400), "batch_norm": True}

PUBLISHED: list[tuple[str, dict[str, Any], int]] = [
    ("lr", {}, 5390),
    ("fm", {}, 59280),
    ("wide_deep", DEEP, 423280),
    ("deepfm", DEEP, 423280),
    ("dcn", {"num_layers": 3, **DEEP}, 418591),
    ("dcn_v2", {"num_layers": 4, **DEEP}, 458391),
    ("dlrm", {"interaction": "cat", "top_hidden": (400, 400, 400), "batch_norm": True}, 417891),
    ("ipnn", {"hidden": (400, 400, 400)}, 433491),
]


def sizes(kind: str, keys: dict[str, Any]) -> tuple[int, int]:
    """Parameters of the built member and those that its formula gives."""
    config = members.config_class(kind)(kind=kind, **keys)
    shapes = {"num_dense": 0, "num_features": NUM_FIELDS, "dim": DIM if config.reads_embeddings else 0}
    built = config.build(**shapes)
    return sum(p.numel() for p in built.parameters()), config.cost(**shapes).parameters


@pytest.mark.parametrize(("kind", "keys", "total"), PUBLISHED, ids=[kind for kind, _, _ in PUBLISHED])
def test_the_dense_part_is_the_published_one(kind: str, keys: dict[str, Any], total: int) -> None:
    config = members.config_class(kind)(kind=kind, **keys)
    first_order = config.build(num_dense=0, num_features=NUM_FIELDS, dim=DIM).first_order
    in_tables = NUM_IDS * (DIM * config.reads_embeddings + first_order)
    assert sizes(kind, keys) == (total - in_tables, total - in_tables)


def test_the_published_dnn_counts_its_network_twice() -> None:
    """Its log says 781,892: the embeddings and twice this network; DLRM's, the same net, says 417,891."""
    built, by_formula = sizes("mlp", DEEP)
    assert built == by_formula == 417891 - NUM_IDS * DIM
    assert 2 * built == 781892 - NUM_IDS * DIM
