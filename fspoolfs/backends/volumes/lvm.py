"""Logical volumes: the pool that a definition names is a volume group, the volume a logical volume in it.

Groups are there or not. A volume that is made here carries a tag with the pool's UUID, which goes where
the volume goes; only such a one is removed again, and put out of action when its pool is stopped.

It is made under a name that nobody else uses, and gets its own when LVM has removed what older volumes
have left in it. What still has the first name, and is not being made just now, nobody has ever seen: the
next build, growth for want of room or deletion in the group removes it, whosesoever it is.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from fspoolfs.backends.volumes import identities
from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import BusyError, InvalidError, NotFoundError, StorageError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.system import lvm
from fspoolfs.system.lvm import LogicalVolume, VolumeGroup

log = logging.getLogger(__name__)

#: What opening a volume answers that is not active: there is no node, or nothing behind it.
_INACTIVE = frozenset((errno.ENOENT, errno.ENXIO))
#: What the tag of a volume begins with that was made here, and the name of one that is being made.
_MADE, _NEW = "fspoolfs.made.", "fspoolfs.new."
#: One for each group, locked while a volume is made there. Not in /run/lock, where any user could have it.
_LOCK = "/run/fspoolfs.lvm.{}"
#: Seconds that another's making of a volume is waited for, and between two looks.
_PATIENCE, _STEP = 60.0, 0.1
#: Seconds for which one report serves questions about many pools.
_FRESH = 5.0


class LogicalVolumes:
    """`VolumeProvider` for volumes of LVM."""

    name: ClassVar[str] = "lvm"
    shrinks: ClassVar[bool] = True
    zeroed: ClassVar[bool] = False

    def __init__(self) -> None:
        self._reports = _Reports()

    def unusable(self) -> str:
        return lvm.unusable()

    def check(self, definition: PoolDefinition) -> None:
        for what, name in zip(("volume group", "logical volume"), _names(definition), strict=True):
            if not lvm.is_name(name):
                raise InvalidError(
                    f"pool {definition.name}: {name!r} is no name of a {what}, which consists of letters, "
                    "digits and + _ . - and does not begin with a hyphen"
                )

        if _names(definition)[1].startswith(_NEW):
            raise InvalidError(
                f"pool {definition.name}: {_names(definition)[1]!r} is what a volume is called while it is "
                "made, and may be removed; name another"
            )

    def identity(self, definition: PoolDefinition) -> str:
        return identities.of_logical(*_names(definition))

    def place(self, definition: PoolDefinition) -> str:
        return "/dev/{}/{}".format(*_names(definition))

    def size(self, definition: PoolDefinition) -> int | None:
        found = lvm.volume(*_names(definition))
        return None if found is None else found.size

    def create(self, definition: PoolDefinition) -> bool:
        group, name = _names(definition)
        with _making(definition) as lock:
            there = {found.name for found in _swept(group)}
            if name in there:
                return False
            if definition.capacity is None:
                raise InvalidError(
                    f"pool {definition.name}: there is no logical volume {group}/{name} yet, and nothing "
                    "says how large it is to be; give the pool a <capacity>"
                )
            self._refuse_lack_of_room(definition, definition.capacity)
            assert definition.uuid is not None, "a pool that is built has one"
            new = f"{_NEW}{definition.uuid.hex}"
            lvm.create(group, new, definition.capacity, tag=f"{_MADE}{definition.uuid}", inherited=[lock])
            lvm.rename(group, new, name, inherited=[lock])
        return True

    def _refuse_lack_of_room(self, definition: PoolDefinition, wanted: int) -> None:
        """`wanted` is in bytes. Raises `NotFoundError`, and `StorageError` (ENOSPC) with the numbers."""
        group = self._group(definition)
        if wanted > group.free:
            raise StorageError(
                f"pool {definition.name}: volume group {group.name} has {group.free} bytes free, and "
                f"{wanted} are needed; add a disk with vgextend, or write a smaller capacity",
                errno=errno.ENOSPC,
            )

    def _make_room(self, definition: PoolDefinition, wanted: int) -> None:
        """The same, after what crashes have left was removed, if it is in the way."""
        group = self._group(definition)
        if wanted > group.free:
            with _making(definition):
                _swept(group.name)
            self._refuse_lack_of_room(definition, wanted)

    def _group(self, definition: PoolDefinition) -> VolumeGroup:
        name, _ = _names(definition)
        group = lvm.volume_group(name)
        if group is None:
            raise NotFoundError(
                f"pool {definition.name}: there is no volume group {name}; make it with vgcreate, or correct "
                "the name"
            )
        return group

    @contextmanager
    def open(self, definition: PoolDefinition) -> Iterator[Device]:
        place = self.place(definition)
        try:
            fd = _open(place)
        except OSError as error:
            if error.errno not in _INACTIVE:
                raise
            self._activate(definition)
            fd = _open(place)
        try:
            yield Device(fd, os.path.realpath(place), place)
        finally:
            os.close(fd)

    def _activate(self, definition: PoolDefinition) -> None:
        group, name = _names(definition)
        if lvm.volume(group, name) is None:
            self._group(definition)
            raise NotFoundError(
                f"pool {definition.name}: there is no logical volume {group}/{name}; build the pool first"
            )
        lvm.activate(group, name)

    def is_behind(self, definition: PoolDefinition, path: str) -> bool:
        return os.path.realpath(path) == os.path.realpath(self.place(definition))

    def release(self, definition: PoolDefinition) -> None:
        if not os.path.lexists(self.place(definition)):
            return
        found = lvm.volume(*_names(definition))
        if found is None or not found.active or not _was_made(found):
            return
        try:
            lvm.deactivate(found.group, found.name)
        except StorageError as error:
            log.warning("pool %s: its logical volume stays active: %s", definition.name, error)

    def grow(self, definition: PoolDefinition, capacity: int) -> None:
        found = self._volume(definition)
        group = self._group(definition)
        if found.size - capacity >= group.extent:
            raise UnsupportedError(
                f"pool {definition.name}: {found.group}/{found.name} has {found.size} bytes, which is more "
                f"than {capacity} already; growing does not make it smaller"
            )
        if found.size < capacity:
            if not found.pool:
                self._make_room(definition, capacity - found.size)
            lvm.extend(found.group, found.name, capacity)

    def shrink(self, definition: PoolDefinition, capacity: int) -> None:
        found = self._volume(definition)
        if found.size - capacity >= self._group(definition).extent:
            lvm.reduce(found.group, found.name, capacity)

    def _volume(self, definition: PoolDefinition) -> LogicalVolume:
        group, name = _names(definition)
        found = lvm.volume(group, name)
        if found is None:
            raise NotFoundError(
                f"pool {definition.name}: there is no logical volume {group}/{name}; build the pool first"
            )
        return found

    def backing(self, definition: PoolDefinition) -> Backing | None:
        return self._reports.backing(*_names(definition))

    def remove(self, definition: PoolDefinition) -> None:
        """Made for whichever pool: what another one had on it has been overwritten, or never came about."""
        group, name = _names(definition)
        with _making(definition):
            for found in _swept(group):
                if found.name == name and _was_made(found):
                    lvm.remove(group, name)


class _Reports:
    """What volumes take of their groups, by one report for all that are asked for within a moment.

    What is not active and thin takes what nobody knows then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._time = -_FRESH
        self._volumes: dict[tuple[str, str], LogicalVolume] = {}
        self._free: dict[str, int] = {}

    def backing(self, group: str, name: str) -> Backing | None:
        with self._lock:
            if time.monotonic() - self._time >= _FRESH:
                self._volumes = {(one.group, one.name): one for one in lvm.volumes()}
                self._free = {one.name: one.free for one in lvm.volume_groups()}
                self._time = time.monotonic()
            found = self._volumes.get((group, name))
            if found is None or found.used is None:
                return None
            store, free = group, self._free.get(group, 0)
            if found.pool:
                thin = self._volumes.get((group, found.pool))
                if thin is None or thin.used is None:
                    return None
                store, free = f"{group}/{thin.name}", round(thin.size * (1 - thin.used))
        return Backing(
            store=store, size=found.size, allocation=round(found.size * found.used), available=free
        )


def _names(definition: PoolDefinition) -> tuple[str, str]:
    source = definition.source
    assert source.pool is not None, "a document without a device names both"
    assert source.volume is not None, "a document without a device names both"
    return source.pool, source.volume


def _was_made(volume: LogicalVolume) -> bool:
    return any(tag.startswith(_MADE) for tag in volume.tags)


@contextmanager
def _making(definition: PoolDefinition) -> Iterator[int]:
    """The lock of the pool's group, which no daemon has, nor a program that one has left at work.

    Programs that inherit its descriptor have it as well. Raises `BusyError`.
    """
    group, _ = _names(definition)
    path = _LOCK.format(group)
    # Not truncated, nor removed afterwards: two would lock two files of one name.
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BusyError(
                        f"pool {definition.name}: a volume is being made or removed in volume group {group}, "
                        f"and that does not end ({path} is locked); try again when it has"
                    ) from None
            time.sleep(_STEP)
        yield lock
    finally:
        os.close(lock)


def _swept(group: str) -> list[LogicalVolume]:
    """All volumes of the group, after those were removed that a crash has kept from being made.

    For who has the group's lock.
    """
    left = []
    for found in lvm.volumes(f'vg_name="{group}"'):
        if not (found.name.startswith(_NEW) and _was_made(found)):
            left.append(found)
            continue
        try:
            lvm.remove(group, found.name)
            log.info("volume group %s: %s, which was never finished, is removed", group, found.name)
        except StorageError as error:
            log.warning("volume group %s: %s stays: %s", group, found.name, error)
    return left


def _open(place: str) -> int:
    return os.open(place, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
