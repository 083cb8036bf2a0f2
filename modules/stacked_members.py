"""StackedMembers: members of one architecture computed as one, their weights stacked, each layer one batched product.

The weights stay the members' own: they are stacked anew in each forward pass, and every member gets its own gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from modules.contracts import MemberInput
from modules.layers.batch_norm import BatchNorm
from modules.layers.dropout import Dropout

_LANE = "lane"


class StackedMembers:
    """Some members as one; results are theirs but for rounding.

    Dropout draws each member's masks from that member's seeds, and batch norm moves each member's own running
    statistics, leaving padding rows out. A call may leave members out. No module: it holds no weights of its own.

    Args:
        members: Name -> member, at least two, all built alike; their state dicts differ in values alone.

    Raises:
        ValueError: they are not alike.
    """

    def __init__(self, members: Mapping[str, nn.Module]) -> None:
        assert len(members) > 1, "one member is no stack"
        self.names = tuple(members)
        self._members = dict(members)
        first, *others = members.values()
        _check_alike(first, others)
        self._pattern = copy.deepcopy(first).to("meta")
        self._parameters = _owners(members, [path for path, _ in first.named_parameters()])
        state = set(first.state_dict())
        # What no checkpoint holds is a constant of the architecture, and the same for all.
        self._statistics = _owners(members, [path for path, _ in first.named_buffers() if path in state])
        self._constants = [path for path, _ in first.named_buffers() if path not in state]
        self._norms = [layer for layer in self._pattern.modules() if isinstance(layer, BatchNorm)]
        self._dropouts: dict[str, _LaneDropout] = {}
        for path, layer in list(self._pattern.named_modules()):
            if isinstance(layer, Dropout) and layer.probability > 0:
                parent, _, leaf = path.rpartition(".")
                of_members = {name: member.get_submodule(path) for name, member in members.items()}
                self._dropouts[path] = _LaneDropout(layer.probability, of_members)
                setattr(self._pattern.get_submodule(parent), leaf, self._dropouts[path])

    def set_rows(self, num_rows: int | None) -> None:
        """Says how many rows of the next batch are real, the first ones; None: all are."""
        for norm in self._norms:
            norm.set_rows(num_rows)

    def __call__(self, inputs: Mapping[str, MemberInput]) -> dict[str, Tensor]:
        """What each member sees, to its logits, [B] or [B, H]; members that are not named are left out."""
        names = list(inputs)
        first = self._members[names[0]]
        if self._pattern.training != first.training:
            self._pattern.train(first.training)
        parameters = {path: torch.stack([of[name]() for name in names]) for path, of in self._parameters.items()}
        with torch.no_grad():
            statistics = {path: torch.stack([of[name]() for name in names]) for path, of in self._statistics.items()}
        lanes = {}
        for path, dropout in self._dropouts.items():
            dropout.names = names
            lanes[f"{path}.{_LANE}"] = torch.arange(len(names), device=inputs[names[0]].embedded_BFD.device)
        constants = {path: first.get_buffer(path) for path in self._constants}
        seen, dims = _side_by_side([inputs[name] for name in names])

        def one(own: dict[str, Tensor], *values: Tensor | None) -> Tensor:
            logits: Tensor = functional_call(self._pattern, own | constants, (MemberInput(*values),))  # type: ignore[arg-type]
            return logits

        # "same": what is drawn inside are masks for all members at once, from seeds of their own.
        logits_K = vmap(one, in_dims=(0, *dims), randomness="same")(parameters | statistics | lanes, *seen)
        if first.training:
            self._take_over(statistics, names)
        return dict(zip(names, logits_K.unbind(), strict=True))

    @torch.no_grad()
    def _take_over(self, statistics: Mapping[str, Tensor], names: Sequence[str]) -> None:
        for path, moved in statistics.items():
            for name, values in zip(names, moved, strict=True):
                self._statistics[path][name]().copy_(values)


class _Owner:
    """A parameter or buffer by the module that holds it, as moving to a device may put another tensor there."""

    def __init__(self, member: nn.Module, path: str) -> None:
        parent, _, self._leaf = path.rpartition(".")
        self._module = member.get_submodule(parent)

    def __call__(self) -> Tensor:
        value = getattr(self._module, self._leaf)
        assert isinstance(value, Tensor)
        return value


class _LaneDropout(Dropout):
    """Draws every member's mask from its own layer; the lane, a buffer, says whose is wanted."""

    lane: Tensor

    def __init__(self, probability: float, layers: Mapping[str, nn.Module]) -> None:
        super().__init__(probability)
        self._layers = dict(layers)  # no submodules: they belong to the members
        self.names: Sequence[str] = tuple(layers)
        self.register_buffer(_LANE, torch.zeros((), dtype=torch.int64), persistent=False)

    def _keep(self, shape: Sequence[int], *, device: torch.device) -> Tensor:
        layers = [self._layers[name] for name in self.names]
        masks = [layer._keep(shape, device=device) for layer in layers if isinstance(layer, Dropout)]
        return torch.stack(masks).index_select(0, self.lane.view(1)).squeeze(0)


def _owners(members: Mapping[str, nn.Module], paths: Sequence[str]) -> dict[str, dict[str, _Owner]]:
    return {path: {name: _Owner(member, path) for name, member in members.items()} for path in paths}


def _side_by_side(inputs: Sequence[MemberInput]) -> tuple[list[Tensor | None], list[int | None]]:
    """Inputs stacked and the dimension that they are stacked along; None where all members see one tensor."""
    seen: list[Tensor | None] = []
    dims: list[int | None] = []
    for values in zip(*inputs, strict=True):
        shared = all(value is values[0] for value in values)
        seen.append(values[0] if shared else torch.stack(values))
        dims.append(None if shared else 0)
    return seen, dims


def _check_alike(first: nn.Module, others: Sequence[nn.Module]) -> None:
    def shapes(member: nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
        values = [*member.named_parameters(), *member.named_buffers()]
        return [(path, value.shape, value.dtype) for path, value in values]

    state = set(first.state_dict())
    for other in others:
        if repr(other) != repr(first) or shapes(other) != shapes(first):
            raise ValueError("they are not built alike")
        for path, value in first.named_buffers():
            if path not in state and not torch.equal(other.get_buffer(path), value):
                raise ValueError(f"their constant {path} differs")


def check_stacked(members: Mapping[str, nn.Module], inputs: MemberInput) -> None:
    """Computes two of the members on copies, one by one and stacked, in evaluation and in training.

    Args:
        members: As for `StackedMembers`.
        inputs: Some rows.

    Raises:
        ValueError: they cannot be computed as one, or then give something else; says which.
    """
    pair = {name: copy.deepcopy(member) for name, member in list(members.items())[:2]}
    stacked = StackedMembers(pair)
    layers = [layer for member in pair.values() for layer in member.modules() if isinstance(layer, Dropout)]
    for seed, layer in enumerate(layers):
        layer.reseed(seed)
    for training in (False, True):
        for member in pair.values():
            member.train(training)
        with torch.no_grad():
            alone = [member(inputs) for member in pair.values()]
            try:
                together = list(stacked({name: inputs for name in pair}).values())
                torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
            except (RuntimeError, ValueError, TypeError) as error:
                raise ValueError(f"torch.func.vmap: {str(error).partition(chr(10))[0]}") from error
            except AssertionError as error:
                way = "training" if training else "evaluation"
                raise ValueError(f"in {way} they give something else than one by one") from error
