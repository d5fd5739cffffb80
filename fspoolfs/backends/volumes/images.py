"""Volumes in files: sparse images below the storage directory, attached by loop devices.

STORAGE/volumes/POOL/VOLUME.img, and beside it VOLUME.img.made, which holds the inode number of an
image that was made here (and that of another while one takes the other's place). The image itself says
it in an extended attribute, which copies bring to other hosts, where the number is another: the UUID of
the pool that it was made for. An image that somebody has put there is used, and never removed. Nobody but
the daemon's user can enter the directory.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from fspoolfs.backends.volumes import identities, image_files
from fspoolfs.backends.volumes.image_files import whole_blocks
from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import InvalidError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.progress import Progress
from fspoolfs.system import atomic, loop, syscalls
from fspoolfs.system.transfer import Transfer

log = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Of the user's kind, which programs copy more often than trusted ones.
_MADE = "user.fspoolfs.made"
#: What storage without extended attributes answers, or an image without this one: xattr(7).
_ABSENT = frozenset((errno.ENODATA, errno.EOPNOTSUPP))
#: Two inode numbers, and newlines.
_RECORD_LIMIT = 64


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
        return identities.of_path(self.place(definition))

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
            os.ftruncate(fd, whole_blocks(definition.capacity))
            _say_made(fd, definition)
            os.fsync(fd)
            _write_record(image, os.fstat(fd).st_ino)
            _rename(temporary, image, replace=False)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return True

    @contextmanager
    def open(self, definition: PoolDefinition) -> Iterator[Device]:
        image = self._image(definition)
        _clear(image)
        with image_files.attached(definition, image) as device:
            yield device

    def is_behind(self, definition: PoolDefinition, path: str) -> bool:
        return image_files.is_behind(self._image(definition), path)

    def release(self, definition: PoolDefinition) -> None:
        image_files.release(definition, self._image(definition))

    def grow(self, definition: PoolDefinition, capacity: int) -> None:
        wanted = whole_blocks(capacity)
        with self._sized(definition) as (file, size):
            if size > wanted:
                raise UnsupportedError(
                    f"pool {definition.name}: its image has {size} bytes, which is more than {wanted} "
                    "already; growing does not make it smaller"
                )
            if size < wanted:
                os.ftruncate(file, wanted)

    def shrink(self, definition: PoolDefinition, capacity: int) -> None:
        wanted = whole_blocks(capacity)
        with self._sized(definition) as (file, size):
            if size > wanted:
                os.ftruncate(file, wanted)

    @contextmanager
    def _sized(self, definition: PoolDefinition) -> Iterator[tuple[int, int]]:
        """The open image and its size in bytes; what becomes of that is durable, and its device follows."""
        file = image_files.open_image(definition, self._image(definition))
        try:
            size = os.fstat(file).st_size
            yield file, size
            if os.fstat(file).st_size != size:
                os.fsync(file)
            image_files.follow_size(file)
        finally:
            os.close(file)

    @contextmanager
    def replacement(self, definition: PoolDefinition, progress: Progress) -> Iterator[str]:
        """A copy of the image beside it, which shares its blocks where the host's storage can."""
        image = self._image(definition)
        file = image_files.open_image(definition, image)
        temporary = _temporary(image)
        try:
            copy = _open_new(temporary)
            try:
                info = os.fstat(file)
                progress.begin("copying", unit="bytes", total=info.st_blocks * image_files.SECTOR)
                Transfer(progress, between=lambda: None).copy(file, copy, info.st_size)
                yield str(temporary)
                made = _was_made(image, definition)
                if made:
                    _say_made(copy, definition)
                os.fsync(copy)
                if made:
                    _write_record(image, info.st_ino, os.fstat(copy).st_ino)
                _rename(temporary, image, replace=True)
                if made:
                    _write_record(image, os.fstat(copy).st_ino)
            finally:
                os.close(copy)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(file)

    def backing(self, definition: PoolDefinition) -> Backing | None:
        return image_files.backing(self._image(definition))

    def remove(self, definition: PoolDefinition) -> None:
        image = self._image(definition)
        _clear(image)
        made = _was_made(image, definition)
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
    text = "".join(f"{inode}\n" for inode in inodes)
    atomic.write_file(str(_record(image)), text.encode(), temporary=_temporary(_record(image)).name)


def _say_made(fd: int, definition: PoolDefinition) -> None:
    """Where the storage has no extended attributes, the record beside the image has to do."""
    try:
        os.setxattr(fd, _MADE, str(definition.uuid).encode())
    except OSError as error:
        if error.errno not in _ABSENT:
            raise


def _says_made(image: Path, definition: PoolDefinition) -> bool:
    try:
        return os.getxattr(image, _MADE, follow_symlinks=False) == str(definition.uuid).encode()
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return False


def _was_made(image: Path, definition: PoolDefinition) -> bool:
    """Whether the image is there, and the very file that was made for this pool, or a copy of it."""
    try:
        info = image.lstat()
        if stat.S_ISREG(info.st_mode) and _says_made(image, definition):
            return True
        record = atomic.read_file(str(_record(image)), _RECORD_LIMIT)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(info.st_mode) and str(info.st_ino).encode() in record.split()


def _temporary(image: Path) -> Path:
    """Where a file is made that is to get this one's name; what a crash has left there is of no use."""
    return image.with_name(f".{image.name}.new")


def _clear(image: Path) -> None:
    """Remove what a crash has left unfinished."""
    for path in (image, _record(image)):
        _temporary(path).unlink(missing_ok=True)


def _open_new(temporary: Path) -> int:
    temporary.unlink(missing_ok=True)
    return os.open(temporary, image_files.OPEN | os.O_CREAT | os.O_EXCL, 0o600)


def _rename(temporary: Path, image: Path, *, replace: bool) -> None:
    """Give the image its name, durably, and in the place of another only where that is meant."""
    directory = os.open(image.parent, _DIRECTORY)
    try:
        if replace:
            os.rename(temporary.name, image.name, src_dir_fd=directory, dst_dir_fd=directory)
        else:
            syscalls.rename_no_replace(temporary.name, image.name, source_fd=directory, target_fd=directory)
        os.fsync(directory)
    finally:
        os.close(directory)
