"""Volumes of libvirt's storage pools: the RFC's own picture of `<pool name=>` and `<volume name=>`.

Pools of libvirt's types dir, fs and logical, raw volumes. A note of each volume that a pool was
built or started on lies in STORAGE/volumes/.libvirt/UUID: where it is, so that what is mounted is found
while libvirt's daemon is away, and whether it was made here. A volume has no room for such a note
itself; its key and, of a file, its inode number keep another one from being taken for it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from fspoolfs.backends.volumes import identities, image_files
from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import (
    ExistsError,
    FspoolError,
    InactiveError,
    InvalidError,
    NotFoundError,
    UnsupportedError,
)
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.system import atomic, loop
from fspoolfs.system.libvirt_storage import Storage, StoragePool, StorageVolume, unusable

log = logging.getLogger(__name__)

#: libvirt's types of pools whose volumes are files, and those whose volumes are devices.
_FILES, _DEVICES = frozenset({"dir", "fs"}), frozenset({"logical"})
_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Note:
    """What is kept of a volume: `made` says that it was made here, `new` that this has not ended yet.

    `volume` is what it is called in the definition, which may name another one by now.
    """

    path: str
    volume: str
    key: str = ""
    inode: int = 0
    made: bool = False
    new: bool = False


class LibvirtVolumes:
    """`VolumeProvider` for the storage pools that libvirt has at `uri`; notes lie below `storage`."""

    name: ClassVar[str] = "libvirt"
    shrinks: ClassVar[bool] = True
    zeroed: ClassVar[bool] = False

    def __init__(self, storage: Path, uri: str) -> None:
        self._notes = storage / "volumes" / ".libvirt"
        self._uri = uri
        self._storage = Storage(uri)

    def unusable(self) -> str:
        return unusable(self._uri) or loop.unusable()

    def check(self, definition: PoolDefinition) -> None:
        """What libvirt has, and what it takes for a name, is only known when it is asked."""

    def identity(self, definition: PoolDefinition) -> str:
        """By the path that the volume has, or will have; by the names while libvirt does not tell it."""
        note = self._note(definition)
        if note is not None and note.path:
            return identities.of_path(note.path)
        name, volume = _names(definition)
        try:
            pool = self._storage.pool(name)
        except FspoolError as error:
            log.debug("pool %s: where its volume is cannot be told: %s", definition.name, error)
            pool = None
        if pool is None or pool.type not in _FILES | _DEVICES:
            return f"volume:libvirt {name}/{volume}"
        return identities.of_path(f"{pool.target}/{volume}")

    # -- what libvirt says ------------------------------------------------------------------------

    def _find(self, definition: PoolDefinition) -> StorageVolume | None:
        """The volume, if there is one. Raises `FspoolError` for a pool or a volume that cannot serve."""
        pool, name = _names(definition)
        self._usable_pool(definition)
        found = self._storage.volume(pool, name)
        if found is not None and (found.kind not in ("file", "block") or found.format != "raw"):
            raise InvalidError(
                f"pool {definition.name}: volume {name} of libvirt's pool {pool} is of kind {found.kind!r} "
                f"and format {found.format!r}; only raw volumes can be formatted and mounted, so name another"
            )
        return found

    def _usable_pool(self, definition: PoolDefinition) -> StoragePool:
        name, _ = _names(definition)
        pool = self._storage.pool(name)
        if pool is None:
            raise NotFoundError(
                f"pool {definition.name}: libvirt has no storage pool {name} at {self._uri}; define it there "
                "(virsh pool-define), or correct the name"
            )
        if pool.type not in _FILES | _DEVICES:
            raise UnsupportedError(
                f"pool {definition.name}: libvirt's pool {name} is of type {pool.type!r}; volumes of pools "
                "of type dir, fs and logical can be used"
            )
        if not pool.active:
            raise InactiveError(
                f"pool {definition.name}: libvirt's pool {name} is not active; start it with "
                f"`virsh pool-start {name}`"
            )
        return pool

    def _known(self, definition: PoolDefinition) -> _Note:
        """Where the volume is: what libvirt says, or what was noted while it does not answer.

        Raises `NotFoundError` when there is no such volume.
        """
        note = self._note(definition)
        try:
            found = self._find(definition)
        except FspoolError:
            if note is None or note.new or not os.path.exists(note.path):
                raise
            return note
        if found is None:
            pool, name = _names(definition)
            raise NotFoundError(
                f"pool {definition.name}: libvirt's pool {pool} has no volume {name}; build the pool first"
            )
        if note is not None and (note.path, note.key) == (found.path, found.key):
            return note
        seen = _Note(path=found.path, volume=_called(definition), key=found.key)
        if note is None or not note.new:  # the next build has to know what was begun
            self._write(definition, seen)
        return seen

    # -- the note ---------------------------------------------------------------------------------

    def _file(self, definition: PoolDefinition) -> Path:
        return self._notes / str(definition.uuid)

    def _note(self, definition: PoolDefinition) -> _Note | None:
        try:
            note = _Note(**json.loads(atomic.read_file(str(self._file(definition)), _LIMIT)))
        except FileNotFoundError:
            return None
        return note if note.volume == _called(definition) else None

    def _write(self, definition: PoolDefinition, note: _Note) -> None:
        if definition.uuid is None:  # it is only being looked at
            return
        self._notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file(definition)
        atomic.write_file(str(file), json.dumps(asdict(note)).encode(), temporary=_temporary(file).name)

    def _forget(self, definition: PoolDefinition) -> None:
        file = self._file(definition)
        _temporary(file).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            atomic.remove_file(str(file))

    # -- the contract -----------------------------------------------------------------------------

    def place(self, definition: PoolDefinition) -> str:
        return self._known(definition).path

    def size(self, definition: PoolDefinition) -> int | None:
        found = self._find(definition)
        return None if found is None else found.capacity

    def create(self, definition: PoolDefinition) -> bool:
        pool, name = _names(definition)
        found, note = self._find(definition), self._note(definition)
        if found is not None:
            if (
                note is not None
                and note.new
                and (found.kind == "block" or found.allocation == 0)
                and definition.capacity is not None
                and found.capacity == image_files.whole_blocks(definition.capacity)
            ):
                self._remember_made(definition, found)  # a crash came between
                return True
            self._known(definition)
            return False
        if definition.capacity is None:
            raise InvalidError(
                f"pool {definition.name}: libvirt's pool {pool} has no volume {name} yet, and nothing says "
                "how large it is to be; give the pool a <capacity>"
            )
        self._write(definition, _Note(path="", volume=_called(definition), new=True))
        try:
            sparse = self._usable_pool(definition).type in _FILES
            self._storage.create(pool, name, image_files.whole_blocks(definition.capacity), sparse=sparse)
            found = self._find(definition)
        except FspoolError:
            with suppress(FspoolError):  # the first refusal is the one to tell
                if self._storage.volume(pool, name) is None:
                    self._forget(definition)
            raise
        if found is None:
            raise NotFoundError(f"pool {definition.name}: volume {name} vanished right after it was made")
        self._remember_made(definition, found)
        return True

    def _remember_made(self, definition: PoolDefinition, found: StorageVolume) -> None:
        if _is_file(found.path):
            image_files.sync(Path(found.path))
        inode, called = _inode(found.path), _called(definition)
        self._write(definition, _Note(path=found.path, volume=called, key=found.key, inode=inode, made=True))

    @contextmanager
    def open(self, definition: PoolDefinition) -> Iterator[Device]:
        note = self._known(definition)
        if _is_file(note.path):
            with image_files.attached(definition, Path(note.path)) as device:
                yield device
            return
        fd = os.open(note.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield Device(fd, os.path.realpath(note.path), note.path)
        finally:
            os.close(fd)

    def is_behind(self, definition: PoolDefinition, path: str) -> bool:
        note = self._note(definition)
        if note is None:
            return False
        return os.path.realpath(path) == os.path.realpath(note.path) or image_files.is_behind(
            Path(note.path), path
        )

    def release(self, definition: PoolDefinition) -> None:
        note = self._note(definition)
        if note is not None and _is_file(note.path):
            image_files.release(definition, Path(note.path))

    def grow(self, definition: PoolDefinition, capacity: int) -> None:
        found = self._existing(definition)
        wanted = image_files.whole_blocks(capacity)
        if found.capacity > wanted:
            raise UnsupportedError(
                f"pool {definition.name}: its volume has {found.capacity} bytes, which is more than {wanted} "
                "already; growing does not make it smaller"
            )
        if found.capacity < wanted:
            self._resize(definition, found, wanted, shrink=False)

    def shrink(self, definition: PoolDefinition, capacity: int) -> None:
        found = self._existing(definition)
        wanted = image_files.whole_blocks(capacity)
        if found.capacity > wanted:
            self._resize(definition, found, wanted, shrink=True)

    def _existing(self, definition: PoolDefinition) -> StorageVolume:
        found = self._find(definition)
        if found is None:
            raise NotFoundError(f"pool {definition.name}: libvirt has no volume for it; build the pool first")
        return found

    def _resize(self, definition: PoolDefinition, found: StorageVolume, size: int, *, shrink: bool) -> None:
        self._storage.resize(*_names(definition), size, shrink=shrink)
        if not _is_file(found.path):
            return
        file = image_files.open_image(definition, Path(found.path))
        try:
            os.fsync(file)
            image_files.follow_size(file)
        finally:
            os.close(file)

    def backing(self, definition: PoolDefinition) -> Backing | None:
        """Of files; what a volume group of libvirt's has is LVM's to tell."""
        note = self._note(definition)
        if note is None or not _is_file(note.path):
            return None
        return image_files.backing(Path(note.path))

    def remove(self, definition: PoolDefinition) -> None:
        note = self._note(definition)
        if note is None:
            return
        found = self._find(definition)
        if found is not None and note.made:
            if (note.key, note.inode) != (found.key, _inode(found.path)):
                raise ExistsError(
                    f"pool {definition.name}: {found.path} is not the volume that was made here; remove it "
                    "by virsh if it is of no use, or undefine the pool, which keeps everything"
                )
            self._storage.delete(*_names(definition))
        self._forget(definition)


def _names(definition: PoolDefinition) -> tuple[str, str]:
    source = definition.source
    assert source.pool is not None, "a document without a device names both"
    assert source.volume is not None, "a document without a device names both"
    return source.pool, source.volume


def _called(definition: PoolDefinition) -> str:
    return "/".join(_names(definition))


def _is_file(path: str) -> bool:
    return os.path.isfile(path)


def _inode(path: str) -> int:
    """The inode number of a file; 0 of a device, which libvirt's key tells from others."""
    return os.stat(path).st_ino if _is_file(path) else 0


def _temporary(file: Path) -> Path:
    """Where a note is written; what a crash has left there is of no use."""
    return file.with_name(f".{file.name}.new")
