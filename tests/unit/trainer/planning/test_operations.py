"""What a record of operations counts, by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from sharding.cost.work import Matmul, Pass
from trainer.planning.operations import Operations

IDS, TWO_ROWS = torch.tensor([1, 2]), torch.randn(2, 10)


def test_a_layer_by_hand() -> None:
    rows, width, out = 128, 32, 64
    values = torch.randn(rows, width, requires_grad=True)
    weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((out, width), (out,)))
    with Operations([values, weight, bias]) as operations:
        with operations.saving():
            loss = functional.linear(values, weight, bias).relu().sum()
        loss.backward()
        del loss
    hidden = 4 * rows * out
    assert set(operations.matmuls) == {
        Matmul(m=rows, k=width, n=out),
        Matmul(m=rows, k=out, n=width),
        Matmul(m=out, k=rows, n=width),
    }
    # relu; its backward reads an expanded 1; sums: the loss, the bias's gradient; the first gradient, 1.
    assert sorted(one.moved_bytes for one in operations.passes) == sorted(
        [2 * hidden, 2 * hidden + 4, hidden + 4, hidden + 4 * out, 4]
    )
    assert operations.saved_bytes == hidden
    # The layer's values and what relu makes of them; in the backward pass no more.
    assert operations.peak_bytes() == 2 * hidden + 4 + 4


def test_the_peak_is_of_what_lives_at_once() -> None:
    with Operations() as operations:
        first = torch.ones(100)
        second = first + 1  # 800 bytes
        del first
        third = second.view(10, 10)[:3] + 1  # 400 + 120
        del second
        fourth = torch.ones(150)  # 120 + 600
    assert operations.peak_bytes() == 800
    assert operations.peak_bytes(without=[fourth]) == 800
    assert operations.peak_bytes(without=[third, torch.ones(3)]) == 800
    with operations:
        fifth = torch.ones(1000)
    assert operations.peak_bytes() == 120 + 600 + 4000
    assert operations.peak_bytes(without=[fifth, third]) == 800
    assert operations.saved_bytes == 0


@pytest.mark.parametrize(
    ("work", "moved"),
    [
        (lambda x: x.t(), []),
        (lambda x: x.view(-1)[3:9].unsqueeze(0).expand(5, 6), []),
        (lambda x: torch.empty_like(x), []),
        (lambda x: x * x, [2 * 400]),
        (lambda x: x + 1, [2 * 400]),
        (lambda x: x.add_(1), [2 * 400]),
        (lambda x: x[:1].expand(10, 10) + x, [40 + 2 * 400]),
        (lambda x: torch.zeros_like(x).copy_(x), [400, 2 * 400]),
        (lambda x: x[IDS], [2 * 80 + 16]),
        (lambda x: x.index_put_((IDS,), TWO_ROWS), [2 * 80 + 16]),
        (lambda x: x.index_put_((IDS,), TWO_ROWS, accumulate=True), [3 * 80 + 16]),
        (lambda x: x.index_add_(0, IDS, TWO_ROWS), [3 * 80 + 16]),
        (lambda x: x.fill_(1.0), [400]),
        (lambda x: x.sum(), [404]),
        (lambda x: x.t().contiguous(), [2 * 400]),
    ],
)
def test_bytes_moved(work: object, moved: list[int]) -> None:
    values = torch.randn(10, 10)
    with Operations([values]) as operations:
        work(values)  # type: ignore[operator]
    assert sorted(one.moved_bytes for one in operations.passes for _ in range(one.count)) == moved


def test_products_of_every_form() -> None:
    batch, left, right = torch.randn(3, 4, 5), torch.randn(4, 5), torch.randn(5, 6)
    with Operations() as operations:
        left @ right, left @ right[:, 0], right[:, 0] @ right[:, 1]
        torch.baddbmm(torch.randn(3, 4, 4), batch, batch.transpose(1, 2))
        torch.einsum("bij,jk->bik", batch, right)
        functional.linear(left.bfloat16(), right.t().bfloat16())
    assert set(operations.matmuls) == {
        Matmul(m=4, k=5, n=6),
        Matmul(m=4, k=5, n=1),
        Matmul(m=1, k=5, n=1),
        Matmul(m=4, k=5, n=4, batch=3),
        Matmul(m=12, k=5, n=6, batch=1),
        Matmul(m=4, k=5, n=6, precision="bf16"),
    }


def test_attention_is_its_products() -> None:
    query, key, value = (torch.randn(2, 3, rows, 8, requires_grad=True) for rows in (5, 7, 7))
    with Operations() as operations:
        functional.scaled_dot_product_attention(query, key, value).sum().backward()
    assert sum(one.flops for one in operations.matmuls) == 2 * 6 * 5 * 7 * 8 * (2 + 5)


def test_convolutions_are_products_of_windows() -> None:
    values, weight = torch.randn(2, 6, 9, requires_grad=True), torch.randn(4, 3, 3, requires_grad=True)
    with Operations() as operations:
        functional.conv1d(values, weight, stride=2, groups=2).sum().backward()
    assert set(operations.matmuls) == {
        Matmul(m=2 * 4, k=9, n=2, batch=2),
        Matmul(m=2 * 4, k=2, n=9, batch=2),
        Matmul(m=9, k=2 * 4, n=2, batch=2),
    }


def test_an_unknown_product_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="convolution"), Operations():
        functional.conv_transpose1d(torch.randn(1, 2, 8), torch.randn(2, 2, 3))


def test_equal_passes_are_counted_together() -> None:
    values = torch.randn(10)
    with Operations() as operations:
        for _ in range(3):
            values.sin()
    assert operations.passes == (Pass(moved_bytes=80, count=3),)
