"""The heap of this process: freed memory is kept for the next batch rather than given back to the kernel.

The tensors of a step are some MiB each. By its defaults glibc gives such blocks back as soon as they are freed, and the
next step has the kernel map and zero them again, page by page.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_KEPT_BYTES = 512 << 20  # free memory at the heap's end that stays
_LARGEST_KEPT_BYTES = (
    32 << 20
)  # of one block; larger ones are the kernel's as before (the most that mallopt(3) documents)
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tells glibc so, unless the environment tells it otherwise; gives whether it did.

    Other C libraries have no such setting, and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(os.environ.get(name) for name in _VARIABLES):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES))
