"""A file as a volume: opened without following links, shown by a loop device, and what it takes of its disk.

For every provider whose volumes are files. Where they lie, and who makes and removes them, is the
provider's business.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fspoolfs.backends.volumes.provider import Device
from fspoolfs.errors import InvalidError, NotFoundError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.system import loop, superblocks

log = logging.getLogger(__name__)

OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: What st_blocks counts in: stat(3type).
SECTOR = 512

#: What a device's blocks can have, in bytes, besides what is usual.
_SMALLER_BLOCKS = frozenset((512, 1024, 2048))

#: Seconds that a loop device may take to end after the last user has closed it.
_PATIENCE = 2.0
_STEP = 0.005


def open_image(definition: PoolDefinition, image: Path) -> int:
    """A descriptor for reading and writing. Raises `NotFoundError`, `InvalidError` for what is no image."""
    try:
        fd = os.open(image, OPEN)
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


@contextmanager
def attached(definition: PoolDefinition, image: Path) -> Iterator[Device]:
    """The loop device of an image, found or made; see `VolumeProvider.open`."""
    file = open_image(definition, image)
    try:
        device = loop.find(os.fstat(file))
        if device is None:
            device = loop.attach(file, _block_for(file))
        elif os.lseek(device, 0, os.SEEK_END) != os.fstat(file).st_size:
            loop.update_size(device)  # which a crash has kept from following
    finally:
        os.close(file)
    try:
        yield Device(device, os.readlink(f"/proc/self/fd/{device}"), str(image))
    finally:
        os.close(device)


def _block_for(file: int) -> int:
    """The size of blocks that an image needs: it may have been made for a disk with small sectors."""
    found = superblocks.read(file)
    # A damaged superblock may say anything.
    return found.sector if found is not None and found.sector in _SMALLER_BLOCKS else loop.BLOCK


def is_behind(image: Path, device: str) -> bool:
    """Whether the device at the path `device` shows the image."""
    return loop.file_behind(device) == os.path.realpath(image)


def release(definition: PoolDefinition, image: Path) -> None:
    """Let the image's loop devices end, which may take a moment."""
    try:
        info = image.lstat()
    except FileNotFoundError:  # what is attached ends by itself
        return
    deadline = time.monotonic() + _PATIENCE
    while loop.is_attached(info) and (device := loop.find(info)) is not None:
        try:
            loop.detach(device)
        finally:
            os.close(device)
        if not loop.is_attached(info):
            return
        if time.monotonic() >= deadline:
            log.warning(
                "pool %s: a loop device of its image goes when the last user of it has ended", definition.name
            )
            return
        time.sleep(_STEP)


def sync(image: Path) -> None:
    """Make an image durable that somebody else has made, with its name."""
    for path, flags in ((image, os.O_RDONLY), (image.parent, os.O_RDONLY | os.O_DIRECTORY)):
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def follow_size(file: int) -> None:
    """Let the loop device of the open image be as large as the image is now."""
    device = loop.find(os.fstat(file))
    if device is not None:
        try:
            loop.update_size(device)
        finally:
            os.close(device)


def backing(image: Path) -> Backing | None:
    """What the image takes of the disk that it lies on; `None` when it is not there."""
    try:
        info, numbers = image.lstat(), os.statvfs(image.parent)
    except FileNotFoundError:
        return None
    return Backing(
        store=_mount_point(image.parent.resolve()),
        size=info.st_size,
        allocation=info.st_blocks * SECTOR,
        available=numbers.f_bavail * numbers.f_frsize,
    )


def whole_blocks(capacity: int) -> int:
    """The bytes of the smallest image that has room for `capacity`."""
    return -(-capacity // loop.BLOCK) * loop.BLOCK


def _mount_point(directory: Path) -> str:
    """Where the file system that holds `directory` begins, by device: a table of mounts can be long."""
    device = directory.stat().st_dev
    for above in directory.parents:
        if above.stat().st_dev != device:
            break
        directory = above
    return str(directory)
