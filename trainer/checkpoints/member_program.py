"""MemberProgram: an exported member as one torch.export program, which runs without this repository.

Where torch takes the member: all kinds here do. A member of yours may not (it branches on values, say); its safetensors
file stands alone then.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from configs.errors import CheckpointError
from modules.single_member import Bags
from trainer import storage
from trainer.checkpoints.export import LoadedMember

_SOME_ROWS = 3
_MOST = 1 << 30


def program_of(loaded: LoadedMember) -> ExportedProgram:
    """The member's forward pass for any number of rows, with its tables and weights.

    It takes what `SingleMember` takes: dense_BN [B, N] and for each id feature, in the model's order, bags as
    (ids [T], offsets [B + 1]), both int64.

    Raises:
        CheckpointError: torch.export does not take this member; says why.

    Example::

        program = torch.export.load("deep.pt2").module()
        logits_B = program(dense_BN, {"C1": (ids_T, torch.arange(len(ids_T) + 1))})
    """
    features, rows = list(loaded.facts.table_rows), Dim("rows", min=1, max=_MOST)
    bags: dict[str, Bags] = {
        name: (torch.zeros(_SOME_ROWS + 1 + index, dtype=torch.int64), torch.tensor([0, 1, 1, _SOME_ROWS + 1 + index]))
        for index, name in enumerate(features)
    }
    shapes: Any = (
        {0: rows},
        {name: ({0: Dim(f"ids_{index}", max=_MOST)}, {0: rows + 1}) for index, name in enumerate(features)},
    )
    dense_BN = torch.zeros(_SOME_ROWS, len(loaded.facts.dense_features))
    try:
        # Otherwise a program for several rows refuses a single one. The setting has no public name (torch 2.13); once
        # torch.export traces dimensions without a special case for 1, leave it out.
        with symbolic_shapes.patch(backed_size_oblivious=True), torch.no_grad():  # type: ignore[attr-defined]
            return torch.export.export(loaded.model, (dense_BN, bags), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever tracing a module can raise
        told = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"member {loaded.facts.member}: torch.export does not take kind {loaded.facts.architecture['kind']!r}"
            f" ({type(error).__name__}: {told}); export it without --programs"
        ) from error


def write_program(loaded: LoadedMember, path: str) -> None:
    """Writes the member's program as a .pt2 file, for torch.export.load.

    Raises:
        CheckpointError: torch.export does not take this member.
    """
    content = io.BytesIO()
    torch.export.save(program_of(loaded), content)
    storage.write_bytes(path, content.getvalue())
