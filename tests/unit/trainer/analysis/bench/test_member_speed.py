"""Members as they are measured: built as told, trained for real, and their bound by hand."""

from __future__ import annotations

import pytest
import torch

from modules import members
from trainer.analysis.bench.member_speed import MeasuredKind, SpeedBench, SpeedSettings, hidden_keys

SETTINGS = SpeedSettings(batch_size=8, fields=3, numeric=2, dim=4, seconds=0.0, rounds=1, size=16)


def weights(measured: MeasuredKind) -> torch.Tensor:
    return torch.cat(
        [weight.detach().flatten() for member in measured._members.values() for weight in member.parameters()]
    )


def test_widths_go_to_networks_alone() -> None:
    assert hidden_keys(members.config_class("dlrm")) == ["dense_hidden", "top_hidden"]
    assert hidden_keys(members.config_class("xdeepfm")) == ["hidden"]
    assert hidden_keys(members.config_class("fm")) == []


@pytest.mark.parametrize("kind", members.kinds())
def test_a_step_trains_and_an_evaluation_does_not(kind: str) -> None:
    settings = SpeedSettings(batch_size=8, fields=3, numeric=2, dim=4, copies=2, hidden=(6,))
    measured = MeasuredKind(kind, settings)
    assert len(weights(measured)) == 2 * measured.cost.parameters
    before = weights(measured)
    for stacked in (False, True):
        measured.evaluate("bf16", stacked=stacked)
        assert torch.equal(weights(measured), before)
        measured.train("fp32", stacked=stacked)
        after = weights(measured)
        assert not torch.equal(after, before)
        before = after


def test_the_bound_is_the_rate_over_the_products() -> None:
    measured = MeasuredKind("mlp", SETTINGS)
    products = 14 * 256 + 256 * 128 + 128
    assert measured.bound(gemm_flops=1e9, training=False) == pytest.approx(1e9 / (2 * products))
    assert measured.bound(gemm_flops=1e9, training=True) == pytest.approx(1e9 / (6 * products))


def test_parts_are_what_a_step_does() -> None:
    bench = SpeedBench(["mlp", "fm"], precisions=("fp32",), settings=SETTINGS, say=lambda _text: None)
    parts = bench.parts()
    assert {kind for kind, _ in parts} == {"mlp", "fm"}
    for shares in parts.values():
        assert sum(shares.values()) == pytest.approx(1)
        assert {"matrix products", "optimizer", "between operators"} <= set(shares)
    assert "threshold_backward" in parts["mlp", "fp32"]  # the backward pass is watched too
    assert "threshold_backward" not in parts["fm", "fp32"]
    # Forward, and both gradients of the two wider layers.
    assert parts["mlp", "fp32"]["matrix products"] > parts["fm", "fp32"]["matrix products"]


def test_how_far_it_is_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.analysis.bench.member_speed._SECONDS_BETWEEN", 0.0)
    said: list[str] = []
    bench = SpeedBench(["fm"], precisions=("fp32",), settings=SETTINGS, say=said.append)
    rates = bench.rates()
    assert {len(runs) for runs in rates.values()} == {1}
    assert len(bench.gemm_flops["fp32"]) == 1
    assert said[0].startswith("warming up: fm fp32 evaluation; 1/4, ETA ")
    assert said[-1].startswith("round 1: fm fp32 training; 4/4, ETA 0:00")
