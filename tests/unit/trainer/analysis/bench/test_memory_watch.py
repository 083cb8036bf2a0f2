"""The peak of a process tree's anonymous memory, against programs that take a known amount."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from trainer.analysis.bench.memory_watch import MemoryWatch, anonymous_bytes, bytes_on_disk

MIB = 1 << 20
HOLD = "import time; held = bytearray(b'x') * ({mib} << 20); time.sleep(0.4)"


def watched(program: str, *, folder: str | None = None) -> MemoryWatch:
    process = subprocess.Popen([sys.executable, "-c", program])
    with MemoryWatch(process.pid, folder=folder) as watch:
        assert process.wait() == 0
    return watch


def test_what_a_process_and_its_children_hold_is_added() -> None:
    child = HOLD.format(mib=150)
    program = (
        "import subprocess, sys, time; held = bytearray(b'x') * (100 << 20);"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}]); assert child.wait() == 0"
    )
    peak = watched(program).peak
    assert 250 * MIB < peak.anonymous_bytes < 300 * MIB
    assert 150 * MIB < peak.of_one_process_bytes < 180 * MIB
    assert peak.num_processes == 2
    assert peak.num_looks > 10


def test_a_child_is_seen_whichever_thread_has_started_it_and_after_its_parent_has_ended(tmp_path: Path) -> None:
    wait = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.02)"
    child = f"import os, time\n{wait}\nheld = bytearray(b'x') * (120 << 20); time.sleep(0.4)"
    starts = f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(0.2)"
    program = (
        f"import subprocess, sys, threading, time; t = threading.Thread(target=lambda: exec({starts!r})); t.start()"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    with MemoryWatch(process.pid) as watch:
        assert process.wait() == 0
        assert watch.peak.anonymous_bytes < 100 * MIB  # the child has yet to take it
        (tmp_path / "go").touch()
        time.sleep(0.8)
    assert watch.peak.anonymous_bytes > 120 * MIB


def test_memory_with_a_file_behind_it_is_not_counted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (200 * MIB))
    program = (
        f"import mmap, time; f = open({str(file)!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0);"
        "assert sum(m[at] for at in range(0, len(m), 4096)) > 0; m[:4096] = b'y' * 4096; time.sleep(0.2)"
    )
    assert watched(program).peak.anonymous_bytes < 50 * MIB


def test_a_folder_is_watched_while_it_is_filled_and_emptied(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file"
    program = (
        f"import os, time; os.mkdir({str(file.parent)!r}); f = open({str(file)!r}, 'wb'); f.write(b'x' * (8 << 20));"
        f"f.close(); time.sleep(1.2); os.remove({str(file)!r})"
    )
    watch = watched(program, folder=str(tmp_path))
    assert 8 * MIB <= watch.peak.folder_bytes < 9 * MIB
    assert bytes_on_disk(str(tmp_path)) == 0


def test_no_process_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert anonymous_bytes(process.pid) is None
    with MemoryWatch(process.pid) as watch:
        pass
    assert watch.peak.anonymous_bytes == 0
