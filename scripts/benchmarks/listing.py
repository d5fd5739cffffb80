"""Long listings as a person asks for them, and how the kernel is made to forget the last one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.trees import ControlTree, cat

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
#: Drop names and inodes, not pages: proc_sys_vm(5).
_NAMES_AND_INODES = "2\n"
#: The requests to forget inodes go out between others; after this many reads they have been answered.
_SETTLING_READS = 32


def list_long(directory: Path) -> float:
    """Seconds that `ls -ln` of a directory takes, its own start included."""
    began = time.perf_counter()
    subprocess.run(["ls", "-ln", "--", directory], stdout=subprocess.DEVNULL, env={"LC_ALL": "C"}, check=True)
    return time.perf_counter() - began


def check_count(directory: Path, expected: int) -> None:
    """Raise `BenchError` unless the directory has `expected` entries: a fast listing must be a whole one."""
    found = sum(1 for _ in directory.iterdir())
    if found != expected:
        raise BenchError(f"{directory} has {found:,} entries instead of {expected:,}")


def forget_entries(trees: Iterable[ControlTree], *, warm: Path) -> None:
    """Empty the kernel's caches of names and inodes, then list `warm`, so that ls itself is cached again."""
    _DROP_CACHES.write_text(_NAMES_AND_INODES)
    for tree in trees:
        for _ in range(_SETTLING_READS):
            cat(tree.status())
    list_long(warm)
