"""A counter of the products that a module really computes, to hold `modules.cost` against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from modules.contracts import MemberInput

aten = torch.ops.aten

FREE = """
_log_softmax _reshape_alias _safe_softmax _softmax _to_copy _unsafe_view abs add add_ alias all amax amin any arange
as_strided bitwise_not cat clamp clamp_min clone constant_pad_nd contiguous copy_ cumsum detach div elu empty
empty_like eq exp expand fill_ flip full ge gelu gt index index_select leaky_relu lift_fresh lift_fresh_copy log
log1p logical_not logsumexp lt masked_fill max maximum mean min minimum native_batch_norm native_group_norm
native_layer_norm ne neg new_empty new_full new_ones new_zeros ones ones_like permute reciprocal relu repeat
rsqrt rsub scalar_tensor select sigmoid silu slice softplus split split_with_sizes sqrt squeeze stack std sub
sub_ sum t tanh transpose tril triu unbind unsqueeze var var_mean view where zeros zeros_like
"""
"""Operators without a product that counts: moves, sums, activations, norms, softmax."""


def _matrix(left: Tensor, right: Tensor) -> int:
    """[.., m, k] by [.., k, n]; vectors count as [k, 1]."""
    return left.numel() * (right.shape[-1] if right.dim() > 1 else 1)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> int:
    pairs = math.prod(query.shape[:-1]) * key.shape[-2]
    return pairs * (query.shape[-1] + value.shape[-1])


PRODUCTS: dict[str, Callable[..., int]] = {
    "mm": _matrix,
    "bmm": _matrix,
    "mv": _matrix,
    "dot": _matrix,
    "addmm": lambda _, left, right: _matrix(left, right),
    "addmv": lambda _, left, right: _matrix(left, right),
    "baddbmm": lambda _, left, right: _matrix(left, right),
    "convolution": lambda values, weight, *_: values.shape[-1] * values.shape[0] * weight.numel(),
    "_scaled_dot_product_flash_attention_for_cpu": lambda q, k, v, *_: _attention(q, k, v),
    "_scaled_dot_product_attention_math": lambda q, k, v, *_: _attention(q, k, v),
}
"""Operators of matrix products, and what they take. The convolution is one of stride 1, width 1, one group."""


class ProductCounter(TorchDispatchMode):
    """Adds up the products of all operators run inside it, in `count`.

    An operator that it does not know is an error: say above whether it multiplies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operator and counts it."""
        result = func(*args, **(kwargs or {}))
        self.count += self._products(func, args, result)
        return result

    def _products(self, func: Any, args: Any, result: Any) -> int:
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            if name == "convolution":
                stride, padding, groups = args[3], args[4], args[8]
                assert set(stride) == {1} and set(padding) == {0} and groups == 1 and set(args[1].shape[2:]) == {1}
            return PRODUCTS[name](*args)
        if name in ("mul", "mul_"):
            return result.numel() if all(isinstance(factor, Tensor) for factor in args) else 0
        if name in ("addcmul", "addcmul_"):
            return result.numel()
        if name in ("pow", "square"):
            assert name == "square" or args[1] == 2, f"pow by {args[1]}: say how many products that is"
            return result.numel()
        assert name in FREE.split(), f"{func}: say in {__name__} whether it multiplies"
        return 0


def products(module: nn.Module, inputs: MemberInput) -> int:
    """All products of one forward pass in evaluation, those of parameters alone included.

    With gradients on: PyTorch's attention takes a fused path of unknown products otherwise.
    """
    module.eval()
    with torch.enable_grad(), ProductCounter() as counter:
        module(inputs)
    return counter.count
