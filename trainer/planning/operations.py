"""Operations: a record of the tensor operations that run inside it, real or fake: products, moves and allocations."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sharding.cost.work import DenseWork, Matmul, Pass, counted_matmuls, counted_passes

# Neither compute nor move: they allocate, or read a number.
_FREE = frozenset(
    ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift", "lift_fresh")
    + ("_local_scalar_dense", "device")
)
# What they write first is not read.
_OVERWRITES = frozenset({"copy_", "fill_", "zero_", "random_", "uniform_", "normal_", "bernoulli_"})
# Of what they are given they take the shape alone.
_SHAPED_LIKE = frozenset(
    ("zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full")
)
# Of the first tensor they read as much as they give.
_GATHERS = frozenset({"index", "index_select", "gather", "embedding", "take"})
# Of the first tensor they write as much as they are given; where they accumulate, they read that much too.
_SCATTERS = frozenset({"index_put_", "_index_put_impl_", "index_copy_", "scatter_"})
_SCATTERED_SUMS = frozenset({"index_add_", "scatter_add_"})


def _mm(left: Tensor, right: Tensor, *_: Any) -> list[Matmul]:
    return [_product(left.shape[0], left.shape[1], right.shape[1], like=left)]


def _bmm(left: Tensor, right: Tensor, *_: Any) -> list[Matmul]:
    return [_product(left.shape[1], left.shape[2], right.shape[2], batch=left.shape[0], like=left)]


def _mv(left: Tensor, right: Tensor, *_: Any) -> list[Matmul]:
    return [_product(left.shape[0] if left.dim() == 2 else 1, left.shape[-1], 1, like=left)]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> list[Matmul]:
    batch, keys = math.prod(query.shape[:-2]), key.shape[-2]
    scores = _product(query.shape[-2], query.shape[-1], keys, batch=batch, like=query)
    return [scores, _product(query.shape[-2], keys, value.shape[-1], batch=batch, like=query)]


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any) -> list[Matmul]:
    scores, mixed = _attention(query, key, value)
    return [scores] * 3 + [mixed] * 2  # the scores once more, then for query, key, value and the weights


def _convolution(made: Tensor, weight: Tensor, *, groups: int) -> Matmul:
    """As a product of unfolded windows."""
    outs = weight.shape[0]
    m, k = made.numel() // outs, math.prod(weight.shape[1:])
    return _product(m, k, outs // groups, batch=groups, like=weight)


_PRODUCTS: dict[str, Callable[..., list[Matmul]]] = {
    "mm": _mm,
    "bmm": _bmm,
    "mv": _mv,
    "dot": _mv,
    "addmm": lambda _, *factors: _mm(*factors),
    "_addmm_activation": lambda _, *factors: _mm(*factors),
    "baddbmm": lambda _, *factors: _bmm(*factors),
    "addmv": lambda _, *factors: _mv(*factors),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}


class Operations(TorchDispatchMode):
    """Records every operation that runs inside it.

    A product is recorded with its shape and no bytes, anything else that moves memory with the bytes of the distinct
    tensors that it reads and writes, each once. Views and allocations are free. An operation counts once however often
    its kernel passes over its tensors.

    Args:
        given: Tensors that are there before: what the operations allocate is counted without them.
    """

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self._given = [tensor.untyped_storage() for tensor in given]  # held, so that no number comes twice
        self._known = {storage._cdata for storage in self._given}
        self._watched: dict[int, tuple[int, weakref.ref[Any]]] = {}  # a storage's address -> its number
        self._sizes: list[int] = []  # by number
        self._events: list[int] = []  # number + 1 when it comes, its negative when it goes
        self._matmuls: list[Matmul] = []
        self._passes: list[Pass] = []
        self._saved: dict[int, int] = {}
        self._of_label: dict[str, tuple[list[Matmul], list[Pass]]] = {}
        self.label: str | None = None  # whose operations those to come are, for `labelled`

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and records it."""
        result = func(*args, **(kwargs or {}))
        outputs = _tensors(result)
        for tensor in outputs:
            self._watch(tensor)
        self._record(func, args, inputs=_tensors((args, kwargs or {})), outputs=outputs)
        return result

    def saving(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Inside this context, what autograd keeps for the backward pass counts as saved."""
        # Detached, since an output that holds itself would outlive its last reader.
        return torch.autograd.graph.saved_tensors_hooks(lambda kept: self._save(kept.detach()), lambda kept: kept)

    @property
    def matmuls(self) -> tuple[Matmul, ...]:
        """The products."""
        return counted_matmuls(self._matmuls)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Everything else that moves memory."""
        return counted_passes(self._passes)

    @property
    def labelled(self) -> dict[str, DenseWork]:
        """Label -> the operations that were recorded under it."""
        return {
            label: DenseWork(matmuls=counted_matmuls(matmuls), passes=counted_passes(passes))
            for label, (matmuls, passes) in self._of_label.items()
        }

    @property
    def saved_bytes(self) -> int:
        """Kept for the backward pass, storages that are there before left out."""
        return sum(self._saved.values())

    def peak_bytes(self, *, without: Iterable[Tensor] = ()) -> int:
        """The most that lived at once of what the operations allocated.

        Args:
            without: Tensors among it that do not count.
        """
        left_out = {number for tensor in without if (number := self._number(tensor)) is not None}
        live = peak = 0
        for event in self._events:
            number = abs(event) - 1
            if number not in left_out:
                live += self._sizes[number] if event > 0 else -self._sizes[number]
                peak = max(peak, live)
        return peak

    def _record(self, func: Any, args: Any, *, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        name = func.overloadpacket.__name__
        products = _products(func, args, outputs=outputs)
        if products is not None:
            self._matmuls += [one for one in products if one.flops]
            return
        if name in _FREE or _is_view(func, inputs=inputs, outputs=outputs):
            return
        moved = _moved(func, args, inputs=inputs, outputs=outputs)
        if moved:
            self._add(passes=[Pass(moved_bytes=moved)])

    def _add(self, *, matmuls: Sequence[Matmul] = (), passes: Sequence[Pass] = ()) -> None:
        self._matmuls += matmuls
        self._passes += passes
        if self.label is not None:
            own = self._of_label.setdefault(self.label, ([], []))
            own[0].extend(matmuls)
            own[1].extend(passes)

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._known or storage._cdata in self._watched or not storage.nbytes():
            return
        number = len(self._sizes)
        self._sizes.append(storage.nbytes())
        self._events.append(number + 1)
        self._watched[storage._cdata] = (number, weakref.ref(storage, partial(self._gone, storage._cdata)))

    def _gone(self, address: int, _: Any) -> None:
        number, _ = self._watched.pop(address)
        self._events.append(-number - 1)

    def _number(self, tensor: Tensor) -> int | None:
        found = self._watched.get(tensor.untyped_storage()._cdata)
        return None if found is None else found[0]

    def _save(self, kept: Tensor) -> Tensor:
        number = self._number(kept)
        if number is not None:
            self._saved[number] = self._sizes[number]
        return kept


def _product(m: int, k: int, n: int, *, like: Tensor, batch: int = 1) -> Matmul:
    return Matmul(m=m, k=k, n=n, batch=batch, precision="bf16" if like.dtype == torch.bfloat16 else "fp32")


def _products(func: Any, args: Any, *, outputs: list[Tensor]) -> list[Matmul] | None:
    """The products of an operation that has any."""
    name = func.overloadpacket.__name__
    if name in _PRODUCTS:
        return _PRODUCTS[name](*args)
    if name == "convolution" and not args[6]:
        return [_convolution(outputs[0], args[1], groups=args[8])]
    if name == "convolution_backward" and not args[7]:
        forward = _convolution(args[0], args[2], groups=args[9])
        to_input = replace(forward, k=forward.n, n=forward.k)
        to_weight = replace(forward, m=forward.k, k=forward.m)
        return [to_input] * bool(args[10][0]) + [to_weight] * bool(args[10][1])
    if func.overloadpacket in flop_registry:
        # Better none than a figure without this one's work.
        raise NotImplementedError(f"{func}: what products this operation takes is not known")
    return None


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _bytes(tensor: Tensor) -> int:
    """Of the values that are there: what is expanded counts once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size)
    return tensor.element_size() * math.prod(sizes)


def _moved(func: Any, args: Any, *, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """Bytes that it reads and writes."""
    name = func.overloadpacket.__name__
    read, written = _distinct(inputs), _distinct([*_written(func, args), *outputs])
    if name in _SCATTERS or name in _SCATTERED_SUMS:
        into, *others = read
        given = max((_bytes(tensor) for tensor in others if tensor.dtype == into.dtype), default=0)
        adds = name in _SCATTERED_SUMS or (len(args) > 3 and args[3] is True)
        return sum(map(_bytes, others)) + (1 + adds) * min(_bytes(into), given)
    if name in _OVERWRITES:
        read = [tensor for tensor in read if tensor is not args[0]]
    if name in _SHAPED_LIKE:
        read = []
    moved = sum(map(_bytes, read)) + sum(map(_bytes, written))
    return moved - max(0, _bytes(read[0]) - sum(map(_bytes, written))) if name in _GATHERS else moved


def _written(func: Any, args: Any) -> list[Tensor]:
    """What it changes in place."""
    marked = zip(func._schema.arguments, args, strict=False)
    changed = [value for argument, value in marked if argument.alias_info is not None and argument.alias_info.is_write]
    return _tensors(changed)


def _is_view(func: Any, *, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    if func.is_view:
        return True
    there = {tensor.untyped_storage()._cdata for tensor in inputs}
    same = all(tensor.untyped_storage()._cdata in there for tensor in outputs)
    return bool(outputs) and same and not func._schema.is_mutable
