"""Embedding tables: what each is called, how big it is and which rule updates it.

All tables of all groups sit in one EmbeddingBagCollection. A group has one table per id feature,
named `group/feature`; a member with first-order weights adds the tables `group+first_order/feature`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection, get_embedding_names_by_table

FIRST_ORDER_SUFFIX = "+first_order"
FIRST_ORDER_DIM = 4  # the narrowest the kernels take; only column 0 is read
# Four columns are one piece, and first-order tables need row-wise Adagrad's mean over all of them.
_WHOLE_ROWS = {"column_wise": "table_wise", "table_column_wise": "table_wise", "grid": "table_row_wise"}


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One embedding table."""

    group: str
    feature: str
    num_rows: int
    dim: int
    optimizer: str
    lr: float
    eps: float
    init_bound: float  # initial weights are uniform in [-init_bound, init_bound]
    seed: int
    placement: str
    kernel: str = "auto"
    l2: float = 0.0  # l2 / 2 times the table's sum of squares joins the loss
    clip_norm: float | None = None  # greatest L2 norm of its group's gradients together
    section: str = ""  # the [tables.NAME] it is declared in; empty: the group has that name

    @property
    def key(self) -> str:
        """Where the configuration speaks of it."""
        return f"tables.{self.section or self.group.removesuffix(FIRST_ORDER_SUFFIX)}"

    @property
    def name(self) -> str:
        """The table's name in checkpoints and plans."""
        return f"{self.group}/{self.feature}"


def first_order_tables(specs: Sequence[TableSpec]) -> list[TableSpec]:
    """Tables of one weight per id beside the group's tables, starting at zero.

    The weight is column 0 of a dim-4 table, whose other columns get no gradient. Row-wise Adagrad
    divides a row's squared gradient by the number of columns, so with lr and eps divided by
    sqrt(4) its step equals the one-column rule: lr/2 g / (sqrt(s/4) + eps/2) = lr g / (sqrt(s) + eps).
    Where the group's columns are split, these tables are laid out alike but with whole rows.
    """
    scale = FIRST_ORDER_DIM**0.5
    tables = []
    for spec in specs:
        row_wise = spec.optimizer == "rowwise_adagrad"
        tables.append(
            replace(
                spec,
                group=spec.group + FIRST_ORDER_SUFFIX,
                dim=FIRST_ORDER_DIM,
                init_bound=0.0,
                lr=spec.lr / scale if row_wise else spec.lr,
                eps=spec.eps / scale if row_wise else spec.eps,
                placement=_WHOLE_ROWS.get(spec.placement, spec.placement),
            )
        )
    return tables


def build_tables(specs: Sequence[TableSpec], *, device: str) -> EmbeddingBagCollection:
    """One collection of all tables, sum-pooled, in the order given."""
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=spec.name,
                feature_names=[spec.feature],
                num_embeddings=spec.num_rows,
                embedding_dim=spec.dim,
                pooling=PoolingType.SUM,
            )
            for spec in specs
        ],
        device=device,
    )


def output_keys(tables: EmbeddingBagCollection) -> Mapping[str, Mapping[str, str]]:
    """Group -> feature -> the collection's output key of its table, in feature order.

    The key is the feature's name, or `feature@table` where several tables share the feature.
    """
    configs = tables.embedding_bag_configs()
    keys: dict[str, dict[str, str]] = {}
    for config, names in zip(configs, get_embedding_names_by_table(configs), strict=True):
        group, _, _ = config.name.partition("/")
        keys.setdefault(group, {})[config.feature_names[0]] = names[0]
    return keys
