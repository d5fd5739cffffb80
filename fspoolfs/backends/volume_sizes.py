"""The sizes of a pool's volume and of the file system on it, which change in this order or the other.

Growing: the volume, its device, the file system. Shrinking: the file system, and then the volume. So a
file system is never larger than its volume; one that is smaller fills it at the next start.
"""

from __future__ import annotations

import errno
import os
import re

from fspoolfs.backends import volume_mounts
from fspoolfs.backends.formats import Format
from fspoolfs.backends.volumes.provider import Device, Replaceable, VolumeProvider
from fspoolfs.errors import StorageError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import superblocks, syscalls
from fspoolfs.system.paths import HostRoot

#: Bytes at the end of a device that a file system may leave unused for good.
_SLACK = 1 << 20
#: What the file systems count in, at least; no volume ends within one.
_BLOCK = 4096
#: What btrfs answers when there is no room for what lies behind the new end, or the size is below its least.
_DOES_NOT_FIT = frozenset((errno.ENOSPC, errno.EINVAL))
#: The same in the words of resize2fs.
_TOO_SMALL = re.compile("smaller than minimum|not enough space|too small", re.IGNORECASE)


def is_too_small(device: Device) -> bool:
    """Whether there is room on `device` behind its file system."""
    found = superblocks.read(device.fd)
    return found is not None and device.size - found.size >= _SLACK


def fill_unmounted(format: Format, device: Device) -> None:
    """Let a file system become as large as its device that this is done to before it is mounted."""
    if format.grow_unmounted is None or not is_too_small(device) or volume_mounts.is_used(device):
        return
    format.grow_unmounted(device)


def fill(format: Format, device: Device, root: HostRoot) -> None:
    """Let a mounted file system become as large as its device."""
    if not is_too_small(device):
        return
    if reason := format.missing() or format.why_not_online():
        raise UnsupportedError(f"the file system at {root.path} cannot be enlarged: {reason}")
    fd = root.open_directory("")
    try:
        format.grow(device, root.path, fd)
    finally:
        os.close(fd)


def check_shrink(
    definition: PoolDefinition, provider: VolumeProvider, format: Format, *, active: bool
) -> None:
    """Raise `UnsupportedError` where the pool's volume cannot become smaller now."""
    name, another = definition.name, "make another pool and move the items"
    if not provider.shrinks:
        raise UnsupportedError(
            f"pool {name} cannot shrink: volumes of provider {provider.name!r} do not; {another}"
        )
    if format.shrink is None and format.shrink_file is None:
        raise UnsupportedError(f"pool {name} cannot shrink: {format.name} never does; {another}")
    if format.shrink is not None and not active:
        raise UnsupportedError(
            f"pool {name}: {format.name} becomes smaller while it is mounted; start the pool and write the "
            "capacity again"
        )
    if format.shrink is None and active:
        raise UnsupportedError(
            f"pool {name}: {format.name} becomes smaller only while it is not mounted; stop the pool, write "
            "the capacity again, and start it"
        )
    if format.shrink is None and not isinstance(provider, Replaceable):
        raise UnsupportedError(
            f"pool {name} cannot shrink: {format.name} is made smaller in a copy, since a power cut in the "
            f"middle would destroy it, and volumes of provider {provider.name!r} have none; {another}"
        )
    if reason := format.missing():
        raise UnsupportedError(f"pool {name} cannot shrink: {reason}")


def shrink_mounted(
    definition: PoolDefinition, provider: VolumeProvider, format: Format, root: HostRoot, capacity: int
) -> None:
    """Shrink the file system at `root`, and the volume behind it.

    Where the volume does not follow, the file system gets its size back.
    """
    assert format.shrink is not None
    fd = root.open_directory("")
    try:
        format.shrink(fd, _whole_blocks(capacity))
        # Else the device is cut off while its superblock still tells the size that it had.
        syscalls.syncfs(fd)
    except OSError as error:
        if error.errno not in _DOES_NOT_FIT:
            raise
        raise _too_full(definition, capacity, error) from error
    finally:
        os.close(fd)
    try:
        provider.shrink(definition, capacity)
    except BaseException:
        with provider.open(definition) as device:
            fill(format, device, root)
        raise


def shrink_unmounted(
    definition: PoolDefinition,
    provider: VolumeProvider,
    format: Format,
    capacity: int,
    progress: Progress,
) -> None:
    """Shrink a copy of the volume that nobody uses, and let it take the volume's place."""
    assert isinstance(provider, Replaceable)
    assert format.shrink_file is not None
    with provider.open(definition) as device:
        volume_mounts.refuse_use(definition, device)
    provider.release(definition)
    with provider.replacement(definition, progress) as path:
        progress.begin("shrinking")
        size = _whole_blocks(capacity)
        try:
            format.shrink_file(path, size, progress)
        except StorageError as error:
            if not _TOO_SMALL.search(str(error)):
                raise
            raise _too_full(definition, capacity, error) from error
        os.truncate(path, size)


def _too_full(definition: PoolDefinition, capacity: int, error: OSError | StorageError) -> StorageError:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return StorageError(
        f"pool {definition.name} cannot shrink to {capacity} bytes: what it holds does not fit ({said}); "
        "remove something, or write a larger capacity",
        errno=errno.ENOSPC,
    )


def _whole_blocks(capacity: int) -> int:
    return -(-capacity // _BLOCK) * _BLOCK
