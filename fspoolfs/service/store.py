"""The host's own memory of pools: STATE/pools/NAME.xml, and markers beside them.

A marker is a file called like the pool in one of `autostart/`, `active/`, `started/` and `deleting/`.

Small files, each written whole, and synced unless they are of `active/`. Methods block; they are
called from worker threads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Set
from pathlib import Path

from fspoolfs import names
from fspoolfs.errors import CorruptError, FspoolError
from fspoolfs.model import documents, formatting
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.system import atomic

log = logging.getLogger(__name__)

_SUFFIX = ".xml"
#: A stored definition is at most a document and what canonical output adds to it.
_LIMIT = 4 << 20


class Store:
    """Definitions of pools and what belongs to them on this host."""

    def __init__(self, state: Path) -> None:
        self._pools = state / "pools"
        self._pending = state / "pending"
        self._autostart = state / "autostart"
        self._active = state / "active"
        self._started = state / "started"
        self._deleting = state / "deleting"

    def prepare(self) -> None:
        """Make the directories, and remove the temporary files of writes that were interrupted."""
        for directory in self.directories():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self.interrupted():
            path.unlink()

    def load(self) -> tuple[list[PoolDefinition], dict[str, FspoolError]]:
        """Every definition that can be read, and for every other name the reason."""
        definitions, unreadable = self.read()
        # What a crash left of pools that were being forgotten: a new pool is not to inherit it.
        for path in self.ownerless({definition.name for definition in definitions} | unreadable.keys()):
            atomic.remove_file(str(path))
        return definitions, unreadable

    def read(self) -> tuple[list[PoolDefinition], dict[str, FspoolError]]:
        """The same, changing nothing."""
        definitions: list[PoolDefinition] = []
        unreadable: dict[str, FspoolError] = {}
        for path in sorted(self._pools.iterdir()):
            name = path.name.removesuffix(_SUFFIX)
            if path.name.startswith("."):
                continue  # a file that is just being written
            if name == path.name:
                log.warning("%s is no definition of a pool and is left alone", path)
                continue
            try:
                definitions.append(self._read(path, name))
            except FspoolError as error:
                unreadable[name] = CorruptError(f"{path}: {error}; correct it and start the daemon again")
            except OSError as error:
                unreadable[name] = CorruptError(f"{path}: {os.strerror(error.errno or 5)}")
        return definitions, unreadable

    def directories(self) -> tuple[Path, ...]:
        """All that belong to the daemon alone."""
        return (self._pools, self._pending, self._autostart, self._active, self._started, self._deleting)

    def interrupted(self) -> list[Path]:
        """The temporary files of writes that were interrupted, unless one is just going on."""
        return [path for where in self.directories() for path in where.iterdir() if path.name.startswith(".")]

    def ownerless(self, defined: Set[str]) -> list[Path]:
        """What is kept of pools that are not `defined`, but for deletions, which are finished first."""
        kept = (self._pending, self._autostart, self._active, self._started)
        return [
            path
            for where in kept
            for path in where.iterdir()
            if not path.name.startswith(".")
            and (path.name.removesuffix(_SUFFIX) if where == self._pending else path.name) not in defined
        ]

    def _read(self, path: Path, name: str) -> PoolDefinition:
        definition = documents.parse_pool(atomic.read_file(str(path), _LIMIT))
        names.check_name(name)
        if definition.name != name or definition.uuid is None or definition.target is None:
            raise CorruptError(f"it does not define pool {name} completely")
        return definition

    def load_pending(self, name: str) -> PoolDefinition | None:
        """The definition that pool `name` takes up when it is no longer active, if there is one."""
        path = self._pending / f"{name}{_SUFFIX}"
        return self._read(path, name) if path.exists() else None

    def save(self, definition: PoolDefinition, pending: PoolDefinition | None) -> None:
        """Durably; `pending` is removed when it is `None`.

        What is wanted in the end is written first, as pending: after a crash the rest follows from it.
        """
        name = f"{definition.name}{_SUFFIX}"
        waiting = self._pending / name
        if pending is not None or waiting.exists():
            atomic.write_file(str(waiting), formatting.format_pool(pending or definition))
        atomic.write_file(str(self._pools / name), formatting.format_pool(definition))
        if pending is None:
            _remove(waiting)

    def remove(self, name: str) -> None:
        """Forget the pool: its definition first, so that what a crash leaves means nothing."""
        _remove(self._pools / f"{name}{_SUFFIX}")
        _remove(self._pending / f"{name}{_SUFFIX}")
        for markers in (self._autostart, self._active, self._started, self._deleting):
            _remove(markers / name)

    def autostarted(self) -> frozenset[str]:
        return frozenset(path.name for path in self._autostart.iterdir())

    def set_autostart(self, name: str, *, autostart: bool) -> None:
        if autostart:
            atomic.write_file(str(self._autostart / name), b"")
        else:
            _remove(self._autostart / name)

    def set_active(self, name: str, *, active: bool) -> None:
        """Remember that the pool was started, for as long as this host is not booted again.

        Never synced: what a daemon that is killed has written is seen by the next one, and after a power
        cut, whatever of it is on the disk, the number of the boot is another.
        """
        if active:
            self.announce_start(name)
        else:
            (self._active / name).unlink(missing_ok=True)

    def announce_start(self, name: str) -> bool:
        """As `set_active`, before a start that attaches; False when the pool was left active anyway.

        What a crash leaves attached is then taken up by the next daemon.
        """
        boot = _boot_id()
        if self._is_left_active(name, boot):
            return False
        atomic.write_file(str(self._active / name), boot, durable=False)
        return True

    def was_started(self, name: str, target: str) -> bool:
        """Whether pool `name` has been active at `target`: the root there must carry it then."""
        path = self._started / name
        return path.exists() and path.read_bytes() == target.encode()

    def remember_start(self, name: str, target: str) -> None:
        if not self.was_started(name, target):
            atomic.write_file(str(self._started / name), target.encode())

    def forget_start(self, name: str) -> None:
        _remove(self._started / name)

    def left_active(self) -> frozenset[str]:
        """The pools that a daemon before this one left active, since the host was booted."""
        boot = _boot_id()
        return frozenset(name for name in os.listdir(self._active) if self._is_left_active(name, boot))

    def _is_left_active(self, name: str, boot: bytes) -> bool:
        try:
            return (self._active / name).read_bytes() == boot
        except FileNotFoundError:  # others come and go meanwhile
            return False

    def deletions(self) -> list[str]:
        """The pools whose storage was being deleted when the daemon ended."""
        return sorted(path.name for path in self._deleting.iterdir())

    def is_being_deleted(self, name: str) -> bool:
        return (self._deleting / name).exists()

    def begin_deletion(self, name: str) -> None:
        """Remember, until `end_deletion`, that the storage of pool `name` is being deleted."""
        atomic.write_file(str(self._deleting / name), b"")

    def end_deletion(self, name: str) -> None:
        _remove(self._deleting / name)


def _remove(path: Path) -> None:
    if path.exists():
        atomic.remove_file(str(path))


def _boot_id() -> bytes:
    """Differs from boot to boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes()
