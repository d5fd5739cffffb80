"""A file system in memory that counts and limits items as a kernel does; `--sim` and tests run on it.

All but limits and counters is that of the generic file system. A directory is counted by itself
from its creation on, so what it holds is never walked. It never recognises a root of another kind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.memory import MemoryRoot
from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo

#: What a generic file system says that it cannot, and this one can.
_ABLE = frozenset({"quota", "files", "usage", "resize"})


class SimulatedFileSystem(GenericFileSystem):
    """`FileSystem` and `Usage`, and what is inherited, on a `MemoryRoot`."""

    name: ClassVar[str] = "simulated"

    def __init__(self, root: MemoryRoot) -> None:
        super().__init__(root)
        self._memory = root

    def features(self) -> Sequence[Feature]:
        return tuple(replace(one, reason="") if one.name in _ABLE else one for one in super().features())

    def check(self, definition: ItemDefinition) -> None:
        """Capacity and files are enforced."""

    def freeze(self, path: str) -> None:
        """Nothing limits a snapshot."""
        self._memory.set_limits(path, capacity=None, files=None)

    def usage(self, path: str) -> UsageInfo:
        found = self._memory.counted([path]).get(path)
        if found is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def usages(self, paths: Sequence[str]) -> Mapping[str, UsageInfo]:
        return self._memory.counted(paths)

    def _enforce(self, path: str, definition: ItemDefinition) -> None:
        self._memory.set_limits(path, capacity=definition.capacity, files=definition.files)


def probe(root: RootDirectory) -> SimulatedFileSystem | None:
    """Every root in memory is one."""
    return SimulatedFileSystem(root) if isinstance(root, MemoryRoot) else None
