"""HardwareFile: a machine to plan for, owned or not: its memories and how fast it reaches them, computes and talks.

The files of configs/hardware/ are such, with the source of every figure; `tools/measure_hardware.py` writes one for the
machine that it runs on. All rates are of one rank while every rank of its host works, all sizes of one rank unless they
say host. GB is 10^9 bytes, as data sheets count; GiB 2^30, as memory is sold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.section import Section, not_negative, positive

MATMUL_TYPES = ("fp32", "bf16")
COLLECTIVES = ("all_to_all", "all_reduce", "reduce_scatter", "all_gather")
TABLE_RULES = ("sgd", "adagrad", "rowwise_adagrad", "adam")
BUFFER_KINDS = ("alone", "exchanged", "row_wise")
PHASES = ("data", "lookup", "communication", "dense", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Host(Section):
    """One machine: what its ranks share."""

    ranks: int
    """Ranks of a host: its GPUs, or the processes that a CPU host is cut into."""

    memory_gib: float
    """Host memory."""

    threads_per_rank: int = 1
    """CPU threads of a rank that the rates are of: run.threads_per_rank of a run that is to reach them."""

    disk_gb_per_s: float = 2.0
    """Reading prepared files, all ranks together."""

    disk_gib: float = 0.0
    """Space on it; 0: not known."""

    batch_rows_per_s: float = 10e6
    """Rows that one rank's data thread turns into batches, of 40 numbers and ids; a row with more takes more."""

    price_per_hour: float = 0.0
    """What an hour of the host costs, in any currency; 0: not known, and no cost is given."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("ranks", self.ranks),
            positive("threads_per_rank", self.threads_per_rank),
            positive("memory_gib", self.memory_gib),
            positive("disk_gb_per_s", self.disk_gb_per_s),
            not_negative("disk_gib", self.disk_gib),
            positive("batch_rows_per_s", self.batch_rows_per_s),
            not_negative("price_per_hour", self.price_per_hour),
        )


@dataclass(frozen=True, kw_only=True)
class Memory(Section):
    """Where a rank's tables and activations lie, and how fast they are reached."""

    gib: float = 0.0
    """Of a GPU; 0 on CPU hosts, whose ranks share host memory."""

    reserve_share: float = 0.15
    """Share that is left free: fragmentation, peaks, what others on the device take."""

    process_gib: float = 0.0
    """What a rank's process takes before the first table: libraries, the CUDA context, collectives' buffers."""

    gb_per_s: float
    """Copying large tensors, bytes read and bytes written together."""

    cache_mib: float = 0.0
    """Last-level cache, of one rank's share; tensors and tables below it move at cache_gb_per_s. 0: no difference."""

    cache_gb_per_s: float = 0.0
    """The same within the cache; 0: as gb_per_s."""

    host_gb_per_s: float = 0.0
    """Host memory to the GPU over PCIe or NVLink-C2C, one way; 0 on CPU hosts."""

    def __post_init__(self) -> None:
        self.refuse(
            not_negative("gib", self.gib),
            None if 0 <= self.reserve_share < 1 else f"reserve_share: {self.reserve_share!r} is not in [0, 1)",
            not_negative("process_gib", self.process_gib),
            positive("gb_per_s", self.gb_per_s),
            not_negative("cache_mib", self.cache_mib),
            not_negative("cache_gb_per_s", self.cache_gb_per_s),
            not_negative("host_gb_per_s", self.host_gb_per_s),
        )


@dataclass(frozen=True, kw_only=True)
class Wire(Section):
    """What a collective reaches: seconds = latency + bytes that a rank sends to others / rate."""

    gb_per_s: float
    """Rate of one rank, one way."""

    latency_us: float = 0.0
    """Of one collective, whatever its size."""

    def __post_init__(self) -> None:
        self.refuse(positive("gb_per_s", self.gb_per_s), not_negative("latency_us", self.latency_us))


@dataclass(frozen=True, kw_only=True)
class Link(Section):
    """Ranks to ranks over one kind of link."""

    gb_per_s: float
    """Rate of one rank, one way, as reached rather than as advertised."""

    latency_us: float = 0.0
    """Of one collective, whatever its size."""

    collectives: dict[str, Wire] = field(default_factory=dict)
    """Those that were measured: all_to_all, all_reduce, reduce_scatter, all_gather; the others go by the rate above."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("gb_per_s", self.gb_per_s),
            not_negative("latency_us", self.latency_us),
            *(
                f"collectives.{name}: not one of {', '.join(COLLECTIVES)}"
                for name in self.collectives
                if name not in COLLECTIVES
            ),
        )

    def wire(self, collective: str) -> Wire:
        """What this collective reaches."""
        return self.collectives.get(collective, Wire(gb_per_s=self.gb_per_s, latency_us=self.latency_us))


@dataclass(frozen=True, kw_only=True)
class MatmulRate(Section):
    """Matrix products [m, k] x [k, n]: tflops / ((1 + half_m / m) (1 + half_k / k) (1 + half_n / n)) are reached.

    The operations are 2 m k n. A dimension of half_* alone halves what is reached; 0: its size does not matter.
    """

    tflops: float
    """Of large products, as reached rather than as advertised."""

    half_m: float = 0.0
    """Rows of the left factor, as a batch has."""

    half_k: float = 0.0
    """The inner dimension."""

    half_n: float = 0.0
    """Columns of the right factor."""

    def __post_init__(self) -> None:
        self.refuse(
            positive("tflops", self.tflops),
            *(not_negative(key, getattr(self, key)) for key in ("half_m", "half_k", "half_n")),
        )


@dataclass(frozen=True, kw_only=True)
class AccessRate(Section):
    """Table rows: seconds = ids (id_ns + row bytes / id_gb_per_s) + distinct rows (row_ns + row bytes / row_gb_per_s)
    + bags row bytes / bag_gb_per_s.

    The first term is paid for every id of a batch; the second once for every distinct row among them: it is what comes
    from memory rather than from a cache, and what an update writes; the third for every bag: its sum written, or its
    gradient read. A rate of 0 leaves its term out.
    """

    id_ns: float = 0.0
    """Of every id, whatever the row's size."""

    id_gb_per_s: float = 0.0
    """Bytes of the row of every id."""

    row_ns: float = 0.0
    """Of every distinct row, whatever its size."""

    row_gb_per_s: float = 0.0
    """Bytes of every distinct row."""

    bag_gb_per_s: float = 0.0
    """Bytes of a row for every bag."""

    def __post_init__(self) -> None:
        keys = ("id_ns", "id_gb_per_s", "row_ns", "row_gb_per_s", "bag_gb_per_s")
        self.refuse(
            *(not_negative(key, getattr(self, key)) for key in keys),
            None if any(getattr(self, key) for key in keys) else "id_ns: all five are 0, so access would take no time",
        )


@dataclass(frozen=True, kw_only=True)
class LookupRates(Section):
    """FBGEMM's pooled lookup and its update, fused into the backward pass."""

    forward: AccessRate
    """Rows read and summed."""

    backward: dict[str, AccessRate]
    """Rule -> gradients sorted, summed and applied: sgd, adagrad, rowwise_adagrad, adam (no CPU kernel has it)."""

    def __post_init__(self) -> None:
        self.refuse(
            *(
                f"backward.{rule}: not one of {', '.join(TABLE_RULES)}"
                for rule in self.backward
                if rule not in TABLE_RULES
            ),
            None if self.backward else "backward: no rule; give at least one",
        )


@dataclass(frozen=True, kw_only=True)
class Overheads(Section):
    """What a step takes whatever its size: Python, kernel launches."""

    step_us: float = 0.0
    """Of a step."""

    table_us: float = 0.0
    """Of a sharded table in a step: splits, permutations, its part of the kernels."""

    replica_us: float = 0.0
    """Of a data-parallel table in a step, its optimizer's step included."""

    op_us: float = 0.0
    """Of one tensor operation of members, forward or backward; their optimizers' operations too."""

    def __post_init__(self) -> None:
        self.refuse(*(not_negative(key, getattr(self, key)) for key in ("step_us", "table_us", "replica_us", "op_us")))


@dataclass(frozen=True, kw_only=True)
class Calibration(Section):
    """Factors that measured runs put on the model's parts; 1 where none were measured."""

    factors: dict[str, float] = field(default_factory=dict)
    """Phase -> measured seconds over modelled ones: data, lookup, communication, dense, optimizer."""

    memory_gib: float = 0.0
    """What a run's peak grows by beside all that the model counts."""

    activation_factor: float = 1.0
    """What of members' activations shows in the peak of a run's memory, over what is traced."""

    buffer_factors: dict[str, float] = field(default_factory=dict)
    """The same of id_buffers and embedding_buffers: of a rank alone (alone), of ranks that exchange pooled embeddings
    (exchanged), and of tables split by rows, whose sums are scattered (row_wise). 1 where not given."""

    runs: int = 0
    """How many runs these are fitted to; 0: none."""

    def __post_init__(self) -> None:
        self.refuse(
            *(positive(f"factors.{phase}", factor) for phase, factor in self.factors.items()),
            *(f"factors.{phase}: not one of {', '.join(PHASES)}" for phase in self.factors if phase not in PHASES),
            *(positive(f"buffer_factors.{kind}", factor) for kind, factor in self.buffer_factors.items()),
            *(
                f"buffer_factors.{kind}: not one of {', '.join(BUFFER_KINDS)}"
                for kind in self.buffer_factors
                if kind not in BUFFER_KINDS
            ),
            not_negative("memory_gib", self.memory_gib),
            positive("activation_factor", self.activation_factor),
            not_negative("runs", self.runs),
        )


@dataclass(frozen=True, kw_only=True)
class HardwareFile(Section):
    """A kind of machine."""

    name: str
    """What to call it."""

    device: Literal["cpu", "cuda"]
    """What its ranks compute on."""

    measured: str = ""
    """When and with which versions tools/measure_hardware.py measured it; empty: figures of data sheets."""

    sources: tuple[str, ...] = ()
    """Where the figures are from."""

    host: Host
    """The machine that ranks share."""

    memory: Memory
    """A rank's memory."""

    matmul: dict[str, MatmulRate]
    """Precision -> matrix products: fp32 (with TF32 off, as training runs), bf16."""

    lookup: LookupRates
    """Table rows that come from memory."""

    lookup_cached: LookupRates | None = None
    """The same while a rank's tables fit into the cache; not given: as lookup."""

    intra_host: Link
    """Rank to rank within a host."""

    inter_host: Link
    """Rank to rank between hosts."""

    overheads: Overheads = field(default_factory=Overheads)
    """What every step takes."""

    overlap: Literal["none", "data", "data_and_ids"] = "data"
    """What hides behind a step's computation: nothing; the making of batches; that and the ids' exchange, as the
    overlapped pipeline of GPUs does."""

    calibration: Calibration = field(default_factory=Calibration)
    """What measured runs say of the model."""

    def __post_init__(self) -> None:
        known = ", ".join(MATMUL_TYPES)
        self.refuse(
            None if self.name else "name: empty; give the machine a name",
            *(f"matmul.{kind}: not one of {known}" for kind in self.matmul if kind not in MATMUL_TYPES),
            None if "fp32" in self.matmul else "matmul.fp32: missing; it is what members compute in unless told",
            "memory.gib: a cuda host needs the memory of a GPU; give it in GiB"
            if self.device == "cuda" and not self.memory.gib
            else None,
            f"memory.gib: {self.memory.gib} GiB on a cpu host, whose ranks share host.memory_gib; remove it"
            if self.device == "cpu" and self.memory.gib
            else None,
            "memory.host_gb_per_s: a cuda host needs the rate of host memory to a GPU; give it in GB/s"
            if self.device == "cuda" and not self.memory.host_gb_per_s
            else None,
        )

    @property
    def rank_bytes(self) -> int:
        """Memory of one rank where it computes: of its GPU, or its share of a CPU host."""
        return int((self.memory.gib or self.host.memory_gib / self.host.ranks) * 2**30)
