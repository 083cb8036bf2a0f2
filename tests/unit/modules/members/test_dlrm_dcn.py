"""The DLRM-DCNv2 member against its equation written out and against TorchRec's with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchrec.models.dlrm import DLRM_DCN
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from modules import members
from modules.contracts import MemberInput
from modules.members.dlrm_dcn import CrossedVectorsMember
from tests.unit.modules import plain
from tests.unit.modules.small import DIM, FEATURES, NUM_DENSE, NUM_FEATURES, TABLE_ROWS, bags, member_input


def build(*, num_dense: int = NUM_DENSE, batch_norm: bool = False) -> CrossedVectorsMember:
    return CrossedVectorsMember(
        num_dense=num_dense,
        num_features=NUM_FEATURES,
        dim=DIM,
        dense_hidden=(6,),
        num_layers=3,
        low_rank_dim=2,
        top_hidden=(7, 8),
        batch_norm=batch_norm,
    )


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("num_dense", [0, NUM_DENSE])
def test_the_member_is_its_equation(num_dense: int, batch_norm: bool) -> None:
    member = plain.unsettled(build(num_dense=num_dense, batch_norm=batch_norm))
    inputs, weights = member_input(9, num_dense=num_dense, dtype=torch.float64), plain.weights_of(member)
    expected = []
    for dense, embedded, _ in plain.rows_of(inputs):
        if num_dense:
            last = plain.mlp(weights, "dense.layers", dense, num_hidden=1, last_linear=True, batch_norms=batch_norm)
            projected = np.array([max(0.0, value) for value in last])
        else:
            projected = weights["constant"]
        x0 = x = plain.side_by_side(projected, embedded)
        for layer in range(3):
            inner = plain.linear(weights, f"cross.layers.{layer}.0", x)
            x = x0 * plain.linear(weights, f"cross.layers.{layer}.1", inner) + x
        logit = plain.mlp(weights, "top.layers", x, num_hidden=2, last_linear=True, batch_norms=batch_norm)
        expected.append(logit[0])
    plain.assert_rows_are(member(inputs), expected)


def test_without_dense_features_it_can_be_traced() -> None:
    member = build(num_dense=0).eval()
    traced = torch.fx.symbolic_trace(member)
    for num_rows in (0, 1, 5):
        inputs = member_input(num_rows, num_dense=0)
        assert torch.equal(traced(inputs), member(inputs))


def test_the_member_equals_torchrecs_dlrm_dcn_with_the_same_weights() -> None:
    member = build()
    tables = [
        EmbeddingBagConfig(name=f"t_{name}", embedding_dim=DIM, num_embeddings=TABLE_ROWS, feature_names=[name])
        for name in FEATURES
    ]
    theirs = DLRM_DCN(
        embedding_bag_collection=EmbeddingBagCollection(tables=tables),
        dense_in_features=NUM_DENSE,
        dense_arch_layer_sizes=[6, DIM],
        over_arch_layer_sizes=[7, 8, 1],
        dcn_num_layers=3,
        dcn_low_rank_dim=2,
    )
    assert member.dense is not None
    for ours, part in ((member.dense, theirs.dense_arch), (member.top, theirs.over_arch)):
        for source, target in zip(ours.parameters(), part.parameters(), strict=True):
            target.data.copy_(source.data)
    crosses = theirs.inter_arch.crossnet
    for layer, (inner, outer) in enumerate(member.cross.layers):
        torch.nn.init.normal_(outer.bias)  # starts at zero, where a mistake would not show
        crosses.V_kernels[layer].data.copy_(inner.weight.data)
        crosses.W_kernels[layer].data.copy_(outer.weight.data)
        crosses.bias[layer].data.copy_(outer.bias.data)
    dense_BN, ids = member_input(33).dense_BN, bags(33)
    inputs = MemberInput(dense_BN=dense_BN, embedded_BFD=theirs.sparse_arch(ids), first_order_BF=None)
    torch.testing.assert_close(member(inputs), theirs(dense_BN, ids).squeeze(1), rtol=0, atol=1e-5)


def test_its_defaults_are_mlperfs_network() -> None:
    """16,044,545 dense parameters: bottom 171,392, crosses 10,627,200, top 5,245,953."""
    with torch.device("meta"):
        member = members.config_class("dlrm_dcn")(kind="dlrm_dcn").build(num_dense=13, num_features=26, dim=128)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (member.dense, member.cross, member.top)]
    assert sizes == [171_392, 10_627_200, 5_245_953]
    assert sum(p.numel() for p in member.parameters()) == 16_044_545


def test_the_crosses_start_as_the_references() -> None:
    """Xavier-normal: standard deviation sqrt(2 / (fan in + fan out)); the biases are zero."""
    member = CrossedVectorsMember(
        num_dense=NUM_DENSE, num_features=9, dim=32, dense_hidden=(), num_layers=2, low_rank_dim=64, top_hidden=()
    )
    for name, value in member.cross.named_parameters():
        if name.endswith("bias"):
            assert not value.any()
        else:
            expected = (2 / (320 + 64)) ** 0.5
            assert abs(value.std().item() / expected - 1) < 0.05
