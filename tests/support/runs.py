"""Small runs for tests."""

from __future__ import annotations

from configs.loader import read_run
from configs.schema import RunConfig
from modules import members

SMALL = """
[run]
seed = 11
[data]
shuffle_window = 64
synthetic = { train_rows = 200, valid_rows = 50, max_table_rows = 60 }
[train]
batch_size = 24
until = { steps = 6 }
log_every = { steps = 4 }
[dense]
lr = 0.01
[tables.shared]
dim = 8
lr = 0.1
[tables.own]
dim = 4
lr = 0.1
[members.deep]
arch = { kind = "mlp", hidden = [16, 8] }
[members.cross]
arch = { kind = "dcn_v2", num_layers = 2, low_rank_dim = 4, hidden = [8] }
[members.dot]
tables = "own"
arch = { kind = "dlrm", dense_hidden = [8], top_hidden = [8] }
[members.factor]
tables = "own"
arch = { kind = "deepfm", hidden = [8] }
"""


def small_run(*overrides: str, text: str = SMALL) -> RunConfig:
    """The run above with overrides: four members, 26 features, tables of at most 62 rows."""
    return read_run(
        text,
        source="small.toml",
        overrides=overrides,
        resolve_arch=members.config_class,
        arch_kinds=members.kinds(),
    )


def placed(placement: str) -> tuple[str, str]:
    """Overrides that put all tables under one placement."""
    return (f"--tables.shared.placement={placement}", f"--tables.own.placement={placement}")


def without(*names: str, text: str = SMALL) -> str:
    """The run above without some of its members."""
    blocks = text.split("[members.")
    kept = [block for block in blocks[1:] if block.split("]")[0] not in names]
    return "[members.".join([blocks[0], *kept])
