"""Simulated directories that several hosts may work on, with the locks that they have of them."""

from __future__ import annotations

from pathlib import Path

from fspoolfs.backends.memory import Interceptor, MemoryLog, MemoryRoot, MemoryTree
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.simulator import SimulatedHost, SimulatedSource
from fspoolfs.backends.source import Sharing
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress


class MemoryLock:
    """A lock of one host on a simulated root."""

    fd = -1

    def __init__(self, held: dict[str, bytes], path: str) -> None:
        self._held = held
        self._path = path
        held[path] = b""

    def read(self, size: int) -> bytes:
        return self._held[self._path][:size]

    def write(self, data: bytes) -> None:
        self._held[self._path] = data

    def release(self) -> None:
        del self._held[self._path]


class MemoryKeeper:
    """What would be processes are notes of a machine, which go with it."""

    def __init__(self, kept: dict[Path, MemoryLock]) -> None:
        self._kept = kept

    def keep(self, lock: MemoryLock, note: Path) -> None:
        self._kept[note] = lock

    def is_kept(self, note: Path) -> bool:
        return note in self._kept

    def let_go(self, note: Path) -> None:
        lock = self._kept.pop(note, None)
        if lock is not None:
            lock.release()


class SharedMemoryRoot(MemoryRoot):
    """A simulated root with the locks of one machine: all of them go with that."""

    def __init__(
        self, source: SharedSimulation, tree: MemoryTree, path: str, interceptor: Interceptor
    ) -> None:
        super().__init__(tree, path, interceptor=interceptor)
        self._source = source

    @property
    def keeper(self) -> MemoryKeeper:
        return MemoryKeeper(self._source.kept)

    def try_lock(self, path: str) -> MemoryLock | None:
        return None if path in self._source.held else MemoryLock(self._source.held, path)

    def reopen_log(self, path: str, *, size: int, known: bool = False) -> MemoryLog:
        return self.open_log(path, size=size)


class SharedSimulation(SimulatedSource):
    """Simulated directories as if an engine had mounted them."""

    def __init__(self, host: SimulatedHost) -> None:
        super().__init__(host)
        self._machine = host
        self.held: dict[str, bytes] = {}
        self.kept: dict[Path, MemoryLock] = {}

    def sharing(self, definition: PoolDefinition) -> Sharing:
        return Sharing(single="", fences=True)

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        root = super().attach(definition, progress)
        assert isinstance(root, MemoryRoot)
        return SharedMemoryRoot(self, root.tree, root.path, self._machine.faults)
