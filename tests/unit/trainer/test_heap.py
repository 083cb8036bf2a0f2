"""Memory that is freed stays in the process, so that the next batch does not have the kernel map it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Steps of eight blocks; gives the pages that were mapped in the last ten. No tensors: small pieces of
# those may lie behind the blocks, which by chance keep the heap as it is.
STEPS = """
import ctypes, resource, sys
from trainer.heap import keep_freed_memory
if sys.argv[1] == "kept":
    print(keep_freed_memory())
size = int(sys.argv[2]) << 20
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(20):
    if step == 10:
        before = faults()
    blocks = [libc.malloc(size) for _ in range(8)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        libc.free(block)
print(faults() - before)
"""


def steps(how: str, mib: int = 4, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", STEPS, how, str(mib)],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
@pytest.mark.parametrize("mib", [4, 48], ids=["as small steps have", "larger than any threshold"])
def test_steps_map_no_new_pages(mib: int) -> None:
    took, kept = steps("kept", mib)
    assert took == "True"
    (default,) = steps("default", mib)
    assert int(kept) < 100 < 10_000 < int(default)


def test_the_environment_wins() -> None:
    assert steps("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
