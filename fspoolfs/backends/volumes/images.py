"""Volumes in files: sparse images below the storage directory, attached by loop devices.

STORAGE/volumes/POOL/VOLUME.img, and beside it VOLUME.img.made, which holds the inode number of an
image that was made here (and that of another while one takes the other's place): an image that
somebody has put there is used, and never removed. Nobody but the daemon's user can enter the directory.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import InvalidError, NotFoundError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.progress import Progress
from fspoolfs.system import atomic, loop, syscalls
from fspoolfs.system.transfer import Transfer

log = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Two inode numbers, and newlines.
_RECORD_LIMIT = 64
#: What st_blocks counts in: stat(3type).
_SECTOR = 512
#: Seconds that a loop device may take to end after the last user has closed it.
_PATIENCE = 2.0
_STEP = 0.005


class Images:
    """`VolumeProvider` for images below the directory `storage`."""

    name: ClassVar[str] = "images"
    shrinks: ClassVar[bool] = True
    zeroed: ClassVar[bool] = True

    def __init__(self, storage: Path) -> None:
        self._volumes = storage / "volumes"

    def unusable(self) -> str:
        return loop.unusable()

    def check(self, definition: PoolDefinition) -> None:
        """Nothing that a document can name is impossible."""

    def identity(self, definition: PoolDefinition) -> str:
        return f"volume:{os.path.realpath(self._volumes)}/{definition.source.pool}/{definition.source.volume}"

    def place(self, definition: PoolDefinition) -> str:
        return str(self._image(definition))

    def _image(self, definition: PoolDefinition) -> Path:
        source = definition.source
        assert source.pool is not None, "a document without a device names both"
        # No name holds a slash, nor begins with a dot.
        return self._volumes / source.pool / f"{source.volume}.img"

    def size(self, definition: PoolDefinition) -> int | None:
        try:
            return self._image(definition).lstat().st_size
        except FileNotFoundError:
            return None

    def create(self, definition: PoolDefinition) -> bool:
        image = self._image(definition)
        if os.path.lexists(image):
            return False
        if definition.capacity is None:
            raise InvalidError(
                f"pool {definition.name}: there is no image {image} yet, and nothing says how large it is to "
                "be; give the pool a <capacity>"
            )
        for directory in (self._volumes, image.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = _temporary(image)
        fd = _open_new(temporary)
        try:
            os.ftruncate(fd, _whole_blocks(definition.capacity))
            os.fsync(fd)
            _write_record(image, os.fstat(fd).st_ino)
            _rename(temporary, image)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return True

    @contextmanager
    def open(self, definition: PoolDefinition) -> Iterator[Device]:
        file = self._open_image(definition)
        _temporary(self._image(definition)).unlink(missing_ok=True)
        try:
            device = loop.find(os.fstat(file))
            if device is None:
                device = loop.attach(file)
            elif os.lseek(device, 0, os.SEEK_END) != os.fstat(file).st_size:
                loop.update_size(device)  # which a crash has kept from following
        finally:
            os.close(file)
        try:
            yield Device(device, os.readlink(f"/proc/self/fd/{device}"), self.place(definition))
        finally:
            os.close(device)

    def _open_image(self, definition: PoolDefinition) -> int:
        image = self._image(definition)
        try:
            fd = os.open(image, _OPEN)
        except FileNotFoundError:
            raise NotFoundError(
                f"pool {definition.name}: its image {image} does not exist; build the pool first, or put the "
                "image back"
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise InvalidError(
                    f"pool {definition.name}: {image} is a symbolic link, which is not followed; put the "
                    "image itself there"
                ) from None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidError(f"pool {definition.name}: {image} is not an image: it is no ordinary file")
        return fd

    def is_behind(self, definition: PoolDefinition, path: str) -> bool:
        return loop.file_behind(path) == os.path.realpath(self._image(definition))

    def release(self, definition: PoolDefinition) -> None:
        try:
            info = self._image(definition).lstat()
        except FileNotFoundError:  # what is attached ends by itself
            return
        deadline = time.monotonic() + _PATIENCE
        while (device := loop.find(info)) is not None:
            try:
                loop.detach(device)
            finally:
                os.close(device)
            if time.monotonic() >= deadline:
                log.warning(
                    "pool %s: a loop device of its image goes when the last user of it has ended",
                    definition.name,
                )
                return
            time.sleep(_STEP)

    def grow(self, definition: PoolDefinition, capacity: int) -> None:
        file = self._open_image(definition)
        try:
            size, wanted = os.fstat(file).st_size, _whole_blocks(capacity)
            if size > wanted:
                raise UnsupportedError(
                    f"pool {definition.name}: its image has {size} bytes, which is more than {wanted} "
                    "already; growing does not make it smaller"
                )
            if size < wanted:
                os.ftruncate(file, wanted)
                os.fsync(file)
            device = loop.find(os.fstat(file))
        finally:
            os.close(file)
        if device is not None:
            try:
                loop.update_size(device)
            finally:
                os.close(device)

    def shrink(self, definition: PoolDefinition, capacity: int) -> None:
        file = self._open_image(definition)
        try:
            wanted = _whole_blocks(capacity)
            if os.fstat(file).st_size > wanted:
                os.ftruncate(file, wanted)
                os.fsync(file)
            device = loop.find(os.fstat(file))
        finally:
            os.close(file)
        if device is not None:
            try:
                loop.update_size(device)
            finally:
                os.close(device)

    @contextmanager
    def replacement(self, definition: PoolDefinition, progress: Progress) -> Iterator[str]:
        """A copy of the image beside it, which shares its blocks where the host's storage can."""
        image = self._image(definition)
        file = self._open_image(definition)
        temporary = _temporary(image)
        try:
            copy = _open_new(temporary)
            try:
                info = os.fstat(file)
                progress.begin("copying", unit="bytes", total=info.st_blocks * _SECTOR)
                Transfer(progress, between=lambda: None).copy(file, copy, info.st_size)
                yield str(temporary)
                os.fsync(copy)
                made = _was_made(image)
                if made:
                    _write_record(image, info.st_ino, os.fstat(copy).st_ino)
                _put_in_place(temporary, image)
                if made:
                    _write_record(image, os.fstat(copy).st_ino)
            finally:
                os.close(copy)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(file)

    def backing(self, definition: PoolDefinition) -> Backing | None:
        image = self._image(definition)
        try:
            info, numbers = image.lstat(), os.statvfs(image.parent)
        except FileNotFoundError:
            return None
        return Backing(
            store=_mount_point(image.parent.resolve()),
            size=info.st_size,
            allocation=info.st_blocks * _SECTOR,
            available=numbers.f_bavail * numbers.f_frsize,
        )

    def remove(self, definition: PoolDefinition) -> None:
        image = self._image(definition)
        temporary = _temporary(image)
        with suppress(FileNotFoundError):
            temporary.unlink()
        made = _was_made(image)
        if made:
            atomic.remove_file(str(image))
        if made or not os.path.lexists(image):
            with suppress(FileNotFoundError):
                atomic.remove_file(str(_record(image)))
            with suppress(OSError):  # others' volumes are in it
                image.parent.rmdir()
        else:
            log.info("pool %s: %s was not made here and stays", definition.name, image)


def _record(image: Path) -> Path:
    return image.with_name(f"{image.name}.made")


def _write_record(image: Path, *inodes: int) -> None:
    atomic.write_file(str(_record(image)), "".join(f"{inode}\n" for inode in inodes).encode())


def _was_made(image: Path) -> bool:
    """Whether the image is there, and the very file that was made here."""
    try:
        info = image.lstat()
        record = atomic.read_file(str(_record(image)), _RECORD_LIMIT)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(info.st_mode) and str(info.st_ino).encode() in record.split()


def _temporary(image: Path) -> Path:
    """Where an image is made that is to get this one's name; what a crash has left there is of no use."""
    return image.with_name(f".{image.name}.new")


def _open_new(temporary: Path) -> int:
    temporary.unlink(missing_ok=True)
    return os.open(temporary, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)


def _whole_blocks(capacity: int) -> int:
    return -(-capacity // loop.BLOCK) * loop.BLOCK


def _rename(temporary: Path, image: Path) -> None:
    """Give the image its name, durably, and never in the place of another."""
    directory = os.open(image.parent, _DIRECTORY)
    try:
        syscalls.rename_no_replace(temporary.name, image.name, source_fd=directory, target_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)


def _mount_point(directory: Path) -> str:
    """Where the file system that holds `directory` begins, by device: a table of mounts can be long."""
    device = directory.stat().st_dev
    for above in directory.parents:
        if above.stat().st_dev != device:
            break
        directory = above
    return str(directory)


def _put_in_place(temporary: Path, image: Path) -> None:
    """Let one image take the place of another, durably."""
    directory = os.open(image.parent, _DIRECTORY)
    try:
        os.rename(temporary.name, image.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)
