"""Members measured alone on random embeddings: rows/s beside what the machine's matrix products would allow.

Shapes: B rows, N numeric features, F id features, D embedding columns.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from configs.section import ArchConfig
from modules import members
from modules.contracts import MemberInput
from modules.cost import Cost
from modules.layers.dropout import Dropout
from modules.losses import row_losses
from modules.member_fields import AUTO, member_fields
from modules.seeding import derive_seed, seeded
from modules.stacked_members import StackedMembers
from trainer.clock import clock

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRAINING_PRODUCTS = 3  # forward, and in the backward pass the products for inputs and for weights
_GEMM_OPERATORS = frozenset({"mm", "addmm", "bmm", "baddbmm", "_addmm_activation", "mv", "addmv", "dot"})
_SECONDS_BETWEEN = 5.0
_NO_NETWORKS = frozenset({"cin_hidden"})  # feature maps of a product layer
_MOST_WATCHED_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """What is measured.

    Attributes:
        batch_size: Rows of a batch.
        fields: Id features.
        numeric: Numeric features; a kind takes them its published way where random data allow.
        dim: Columns of an embedding.
        hidden: Widths for every key that holds hidden widths of a network; None: the defaults of the kind.
        copies: Members of each kind that share a batch, with embeddings of their own.
        device: cpu or cuda.
        seconds: Of each measurement.
        rounds: In which all kinds take turns, and of which the median counts.
        size: Rows and columns of the square matrices whose product is the bound.
        clock: wall, or cpu: seconds of this process's threads, which do not count while others hold the processor.
    """

    batch_size: int
    fields: int
    numeric: int
    dim: int
    hidden: tuple[int, ...] | None = None
    copies: int = 1
    device: str = "cpu"
    seconds: float = 0.5
    rounds: int = 3
    size: int = 2_048
    clock: Literal["wall", "cpu"] = "wall"


def hidden_keys(config_class: type[ArchConfig]) -> list[str]:
    """The keys of a kind that hold the hidden widths of a network."""
    names = [field.name for field in dataclasses.fields(config_class)]
    return [name for name in names if name.endswith("hidden") and name not in _NO_NETWORKS]


class MeasuredKind:
    """Copies of one kind with their batch and their optimizers.

    Args:
        kind: A member's kind.
        settings: What to build.
    """

    def __init__(self, kind: str, settings: SpeedSettings) -> None:
        self.kind, self.settings = kind, settings
        self.device = torch.device(settings.device)
        config_class = members.config_class(kind)
        widths: dict[str, Any] = {}
        if settings.hidden is not None:
            widths = {key: settings.hidden for key in hidden_keys(config_class)}
        self.config = config_class(kind=kind, **widths)
        self.fields = member_fields(
            self.config,
            wish=AUTO,
            dense_names=[f"I{index}" for index in range(settings.numeric)],
            id_features=[f"C{index}" for index in range(settings.fields)],
            numeric_ids={},
        )
        self.cost: Cost = self.fields.cost(self.config, dim=settings.dim)
        names = [f"{kind}_{copy}" for copy in range(1, settings.copies + 1)]
        with seeded(derive_seed(1, kind)):
            built = {name: self.fields.build(self.config, dim=settings.dim).to(self.device) for name in names}
            self._inputs = {name: self._rows(built[name]) for name in names}
            self._labels_B = torch.randint(0, 2, (settings.batch_size,), device=self.device).float()
        self._members: dict[str, nn.Module] = built
        self._stack = StackedMembers(built) if settings.copies > 1 else None
        self._dropouts = [
            layer for member in built.values() for layer in member.modules() if isinstance(layer, Dropout)
        ]
        # One rule for each member, as training has it.
        self._optimizers = [torch.optim.Adam(member.parameters(), lr=1e-4) for member in built.values()]
        self._num_steps = 0

    def _rows(self, member: nn.Module) -> MemberInput:
        rows, features, dim = self.settings.batch_size, self.settings.fields, self.settings.dim
        return MemberInput(
            torch.randn(rows, self.fields.num_dense, device=self.device),
            (0.1 * torch.randn(rows, features, dim * self.fields.embedded, device=self.device)).requires_grad_(),
            (0.1 * torch.randn(rows, features, device=self.device)).requires_grad_() if member.first_order else None,
        )

    def evaluate(self, precision: str, *, stacked: bool = False) -> None:
        """A forward pass of all copies as in evaluation."""
        self._set_mode(training=False)
        with torch.no_grad():
            self._logits(precision, stacked=stacked)

    def train(self, precision: str, *, stacked: bool = False) -> None:
        """A training step of all copies, with the gradient of their embeddings."""
        self.differentiate(precision, stacked=stacked)
        self.optimize()

    def differentiate(self, precision: str, *, stacked: bool = False) -> None:
        """Forward and backward pass of a training step."""
        self._set_mode(training=True)
        self._num_steps += 1
        for index, layer in enumerate(self._dropouts):
            layer.reseed(derive_seed(index, self._num_steps))
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        for inputs in self._inputs.values():
            for value in inputs[1:]:
                if value is not None:
                    value.grad = None
        losses = [row_losses(z, self._labels_B).mean() for z in self._logits(precision, stacked=stacked)]
        torch.stack(losses).sum().backward()

    def optimize(self) -> None:
        """The optimizers' part of a training step."""
        for optimizer in self._optimizers:
            optimizer.step()

    def _logits(self, precision: str, *, stacked: bool) -> list[Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            if stacked:
                assert self._stack is not None
                return [logits.float() for logits in self._stack(self._inputs).values()]
            return [self._members[name](inputs).float() for name, inputs in self._inputs.items()]

    def _set_mode(self, *, training: bool) -> None:
        for member in self._members.values():
            if member.training != training:
                member.train(training)

    def bound(self, *, gemm_flops: float, training: bool) -> float | None:
        """Rows/s at which the matrix products alone would keep the machine busy; None for a kind without any.

        Args:
            gemm_flops: Floating point operations a second of a large matrix product, a multiply-add being two.
            training: Of a step, else of a forward pass.
        """
        products = self.settings.copies * self.cost.multiply_adds * (TRAINING_PRODUCTS if training else 1)
        return gemm_flops / (2 * products) if products else None


class SpeedBench:
    """Measures kinds in turns.

    Args:
        kinds: Kinds of members.
        precisions: Of fp32, bf16.
        settings: What is measured.
        say: Tells how far it is.
    """

    def __init__(
        self, kinds: Sequence[str], *, precisions: Sequence[str], settings: SpeedSettings, say: Callable[[str], None]
    ) -> None:
        self.measured = [MeasuredKind(kind, settings) for kind in kinds]
        self.precisions = tuple(precisions)
        self.settings = settings
        self.gemm_flops: dict[str, list[float]] = {precision: [] for precision in precisions}
        self._say = say

    def rates(self) -> dict[tuple[str, str, str], list[float]]:
        """(kind, precision, way) -> rows/s in each round; `gemm_flops` is measured in the same rounds.

        Ways are evaluation and training, with several copies also stacked_evaluation and stacked_training.
        """
        works = {
            (measured.kind, precision, way): work
            for measured in self.measured
            for precision in self.precisions
            for way, work in self._ways(measured, precision).items()
        }
        rates: dict[tuple[str, str, str], list[float]] = {key: [] for key in works}
        progress = _Progress((1 + self.settings.rounds) * len(works), say=self._say)
        for turn in range(1 + self.settings.rounds):  # in the first one nothing is counted
            for precision in self.precisions:
                self.gemm_flops[precision] += [self._gemm(precision)] * (turn > 0)
            for key, work in works.items():
                seconds = self._seconds(work, least=self.settings.seconds * (turn > 0))
                if turn:
                    rates[key].append(self.settings.batch_size / seconds)
                progress.done(f"{'round ' + str(turn) if turn else 'warming up'}: {' '.join(key)}")
        return rates

    def _ways(self, measured: MeasuredKind, precision: str) -> dict[str, Callable[[], None]]:
        ways: dict[str, Callable[[], None]] = {
            "evaluation": lambda: measured.evaluate(precision),
            "training": lambda: measured.train(precision),
        }
        if self.settings.copies > 1:
            ways["stacked_evaluation"] = lambda: measured.evaluate(precision, stacked=True)
            ways["stacked_training"] = lambda: measured.train(precision, stacked=True)
        return ways

    def _gemm(self, precision: str) -> float:
        size, dtype = self.settings.size, DTYPES[precision]
        left, right = (torch.randn(size, size, device=self.settings.device).to(dtype) for _ in range(2))
        torch.mm(left, right)
        return 2 * size**3 / self._seconds(lambda: torch.mm(left, right), least=self.settings.seconds)

    def _seconds(self, work: Callable[[], object], *, least: float) -> float:
        """Seconds of one piece of work, the mean over as many as fill `least` seconds."""
        count, started = 0, self._now()
        while True:
            work()
            count += 1
            if (passed := self._now() - started) >= least:
                return passed / count

    def _now(self) -> float:
        if self.settings.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.settings.clock == "cpu" else time.perf_counter()

    def parts(self) -> dict[tuple[str, str], dict[str, float]]:
        """(kind, precision) -> what a training step's time goes to, as shares.

        `matrix products`, `optimizer`, each other operator by its name, and `between operators`: Python and autograd.
        """
        progress = _Progress(len(self.measured) * len(self.precisions), say=self._say)
        found = {}
        for measured in self.measured:
            for precision in self.precisions:
                found[measured.kind, precision] = self._parts(measured, precision)
                progress.done(f"parts of a step: {measured.kind} {precision}")
        return found

    def _parts(self, measured: MeasuredKind, precision: str) -> dict[str, float]:
        step = self._seconds(lambda: measured.train(precision), least=0.0)
        count = max(1, min(_MOST_WATCHED_STEPS, int(self.settings.seconds / step)))
        steps: list[dict[str, float]] = []
        for _ in range(count):
            whole = self._seconds(lambda: measured.differentiate(precision), least=0.0)
            spent = {"matrix products": 0.0, "optimizer": self._seconds(measured.optimize, least=0.0)}
            with _OperatorSeconds(self._now) as watched:
                measured.differentiate(precision)
            for operator, seconds in watched.seconds.items():
                name = "matrix products" if operator in _GEMM_OPERATORS else operator
                spent[name] = spent.get(name, 0.0) + seconds
            between = whole + spent["optimizer"] - sum(spent.values())
            steps.append(spent | {"between operators": max(0.0, between)})
        medians = {name: statistics.median(step.get(name, 0.0) for step in steps) for name in steps[0]}
        return {name: value / sum(medians.values()) for name, value in medians.items()}


class _OperatorSeconds(TorchDispatchMode):
    """Adds up each operator's seconds, each waited for; what lies between operators is not in them."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self._now = now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = self._now()
        result = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket.__name__)
        if not name.startswith("_record_function"):
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - started
        return result


class _Progress:
    """Tells every few seconds how far measuring is, and how long it takes yet."""

    def __init__(self, total: int, *, say: Callable[[str], None]) -> None:
        self._total, self._say = total, say
        self._count = 0
        self._started = self._last = time.monotonic()

    def done(self, what: str) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN:
            self._last = now
            left = (now - self._started) / self._count * (self._total - self._count)
            self._say(f"{what}; {self._count}/{self._total}, ETA {clock(left)}")
