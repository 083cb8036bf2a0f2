"""The heap of this process: freed memory is kept for the next batch rather than given back to the kernel.

The tensors of a step are some MiB each, with large batches hundreds. By its defaults glibc gives such blocks back as
soon as they are freed, and the next step has the kernel map and zero them again, page by page. Blocks above 32 MiB it
maps one by one whatever the threshold; with no such mapping allowed they come from the heap, too. What the process
keeps is bounded by what it once used, and by the trim threshold.
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # M_TRIM_THRESHOLD and so on of malloc.h
_KEPT_BYTES = (1 << 31) - 1  # free memory at the heap's end that stays; mallopt takes an int
_LARGEST_MAPPED_BYTES = 32 << 20  # the most that mallopt(3) documents as threshold
_MOST_MAPPINGS = 0
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tells glibc so, unless the environment tells it otherwise; gives whether it did.

    Other C libraries have no such setting, and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(os.environ.get(name) for name in _VARIABLES):
        return False
    settings = (
        (_TRIM_THRESHOLD, _KEPT_BYTES),
        (_MMAP_THRESHOLD, _LARGEST_MAPPED_BYTES),
        (_MMAP_MAX, _MOST_MAPPINGS),
    )
    return all([mallopt(name, value) for name, value in settings])
