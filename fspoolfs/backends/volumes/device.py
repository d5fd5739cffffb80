"""Volumes that are block devices of the host: a disk, a partition, a logical volume of somebody's.

They are there or not: never made, enlarged or removed here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from fspoolfs.backends.volumes import identities
from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import InvalidError, NotFoundError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing


class Devices:
    """`VolumeProvider` for `<device path=>`."""

    name: ClassVar[str] = "device"
    shrinks: ClassVar[bool] = False
    zeroed: ClassVar[bool] = False

    def unusable(self) -> str:
        return ""

    def check(self, definition: PoolDefinition) -> None:
        if definition.source.device is None:
            raise InvalidError(
                f"pool {definition.name}: a volume of provider 'device' is named by its path alone; write "
                "<source><device path='/dev/disk/by-id/…'/></source>"
            )
        size = self.size(definition)
        if size is not None and definition.capacity is not None and definition.capacity > size:
            raise self._fixed(definition, size)

    def identity(self, definition: PoolDefinition) -> str:
        """By the device where it is there, since a device has many paths."""
        return identities.of_path(definition.source.device or "")

    def place(self, definition: PoolDefinition) -> str:
        return os.path.realpath(definition.source.device or "")

    def size(self, definition: PoolDefinition) -> int | None:
        try:
            with self.open(definition) as device:
                return device.size
        except (NotFoundError, InvalidError):  # a start says what is wrong with what is there
            return None

    def create(self, definition: PoolDefinition) -> bool:
        with self.open(definition):
            return False

    @contextmanager
    def open(self, definition: PoolDefinition) -> Iterator[Device]:
        place, name = self.place(definition), definition.name
        try:
            # O_NONBLOCK: a fifo in its place must not hold the thread.
            fd = os.open(place, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(
                f"pool {name}: there is no device {place}; attach the disk, or correct the path"
            ) from None
        except IsADirectoryError:
            raise _not_a_device(name, place) from None
        try:
            if not stat.S_ISBLK(os.fstat(fd).st_mode):
                raise _not_a_device(name, place)
            yield Device(fd, place, place)
        finally:
            os.close(fd)

    def is_behind(self, definition: PoolDefinition, path: str) -> bool:
        return path == self.place(definition)

    def release(self, definition: PoolDefinition) -> None:
        """It stays what it is."""

    def grow(self, definition: PoolDefinition, capacity: int) -> None:
        size = self.size(definition)
        if size is not None and size != capacity:
            raise self._fixed(definition, size)

    def _fixed(self, definition: PoolDefinition, size: int) -> UnsupportedError:
        return UnsupportedError(
            f"pool {definition.name}: {self.place(definition)} has {size} bytes, and a device is not made "
            f"larger or smaller here; leave <capacity> out, or write {size} when the device has grown and "
            "its file system is to follow"
        )

    def shrink(self, definition: PoolDefinition, capacity: int) -> None:
        self.grow(definition, capacity)

    def backing(self, definition: PoolDefinition) -> Backing | None:
        """The device is all there is."""
        return None

    def remove(self, definition: PoolDefinition) -> None:
        """It was not made here."""


def _not_a_device(name: str, place: str) -> InvalidError:
    return InvalidError(f"pool {name}: {place} is not a block device; name a disk, a partition or a volume")
