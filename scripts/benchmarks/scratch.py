"""The one directory that a run works in, on a real disk; it and all that is mounted in it go at the end."""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.mounts import mount_of, unmount_below

#: File systems on which a synced write costs nothing, so that nothing durable can be measured.
_NO_DISK = frozenset({"tmpfs", "ramfs", "rootfs", "overlay"})


@dataclass(frozen=True, slots=True)
class Scratch:
    """Hands out fresh directories below `path`."""

    path: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def directory(self, name: str) -> Path:
        """A new empty directory whose name begins with `name`."""
        made = self.path / f"{name}-{next(self._numbers)}"
        made.mkdir()
        return made


@contextmanager
def scratch(parent: Path) -> Iterator[Scratch]:
    """A scratch directory with a random name in `parent`; raises `BenchError` if that is not on a disk."""
    parent = parent.resolve()
    if not parent.is_dir():
        raise BenchError(f"{parent} is no directory")
    kind = mount_of(parent).kind
    if kind in _NO_DISK:
        raise BenchError(f"{parent} is on {kind}, which has no disk to sync; name another place with --dir")
    path = parent / f"fspoolfs-bench-{secrets.token_hex(8)}"
    path.mkdir(mode=0o711)
    try:
        yield Scratch(path)
    finally:
        unmount_below(path)
        shutil.rmtree(path)
