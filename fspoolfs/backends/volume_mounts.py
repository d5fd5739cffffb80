"""Mounts of volumes: a pool's file system at its target, and what else is mounted from a device.

A mount is the pool's own when the device that it shows carries the pool's UUID, whatever path, number
or image was remembered. Never formats anything and never unmounts what is not the pool's.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from fspoolfs.backends.formats import Format
from fspoolfs.backends.volumes.provider import Device, VolumeProvider
from fspoolfs.errors import BusyError, StorageError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import MountUse
from fspoolfs.system import mounting, mounts, superblocks
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.holders import holders
from fspoolfs.system.paths import HostRoot

log = logging.getLogger(__name__)

#: What a kernel answers to an option that it does not know, or a file system that was not made for it.
_REFUSED_OPTION = frozenset((errno.EINVAL, errno.ESRCH, errno.EOPNOTSUPP, errno.ENOSYS))
#: What a file system answers that finds itself damaged; EUCLEAN is its usual word for that.
_DAMAGED = frozenset((errno.EUCLEAN, errno.EBADMSG, errno.EIO, errno.EINVAL))
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: How many processes a refusal names.
_NAMED = 3


def pools_mount(
    definition: PoolDefinition,
    provider: VolumeProvider,
    place: str,
    table: Sequence[mounts.Mount] | None = None,
) -> mounts.Mount | None:
    """The mount at `place` if it is of the pool's own file system; `table` is what was just read.

    Where its device cannot be read any more, whether it is the pool's volume has to do: a pool whose
    disk has failed can be let go.
    """
    found = mounts.mount_at(place, table)
    return found if found is not None and _is_pools(definition, provider, found) else None


def _is_pools(definition: PoolDefinition, provider: VolumeProvider, mount: mounts.Mount) -> bool:
    if not mount.source.startswith("/"):
        return False
    try:
        uuid = _uuid_on(mount.source)
    except OSError:
        uuid = None
    if uuid is None:
        return provider.is_behind(definition, mount.source)
    return uuid == definition.uuid


def refuse_covered(
    definition: PoolDefinition, provider: VolumeProvider, place: str, table: Sequence[mounts.Mount]
) -> None:
    """Raise `BusyError` when the pool's file system is mounted at `place`, out of sight below another mount.

    Nobody can unmount it there before that one is gone, and its volume is in use for as long.
    """
    seen = mounts.containing(table, place)
    for mount in table:
        if mount.target != os.path.normpath(place) or seen is None or mount.mount_id == seen.mount_id:
            continue
        if not _is_pools(definition, provider, seen) and _is_pools(definition, provider, mount):
            raise BusyError(
                f"pool {definition.name}: {seen.source} ({seen.fs_type}) is mounted at {seen.target} and "
                f"covers the pool's volume at {place}; unmount that first"
            )


def _uuid_on(path: str) -> UUID | None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = superblocks.read(fd) if stat.S_ISBLK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)
    return found.uuid if found is not None else None


def shows(mount: mounts.Mount, device: Device) -> bool:
    """Whether a mount is of the file system on `device`."""
    return _shows(mount, device.number)


def _shows(mount: mounts.Mount, number: int) -> bool:
    """The same by the device's number; mounts of btrfs have numbers of their own."""
    if mount.device == f"{os.major(number)}:{os.minor(number)}":
        return True
    try:
        info = os.stat(mount.source) if mount.source.startswith("/") else None
    except OSError:
        return False
    return info is not None and stat.S_ISBLK(info.st_mode) and info.st_rdev == number


def refuse_other_mounts(
    definition: PoolDefinition, device: Device, table: Sequence[mounts.Mount] | None = None
) -> None:
    """Raise `BusyError` when the file system on `device` is mounted as a whole somewhere.

    Parts of it do not count: containers keep items mounted when their pool was destroyed. `table` is
    what was just read.
    """
    number = device.number
    for mount in mounts.mounts() if table is None else table:
        if mount.root == "/" and _shows(mount, number):
            raise BusyError(
                f"pool {definition.name}: {device.origin} is mounted at {mount.target} already; unmount it "
                "there, since nothing else may write to a pool's volume"
            )


def refuse_use(definition: PoolDefinition, device: Device) -> None:
    """Raise `BusyError` when anything at all uses `device`, in whichever mount namespace."""
    refuse_other_mounts(definition, device)
    if is_used(device):
        raise BusyError(
            f"pool {definition.name}: {device.origin} is in use: it is mounted somewhere, or part of another "
            "volume; nothing on it is touched before that ends"
        )


def is_used(device: Device) -> bool:
    """Whether a mount, in whichever namespace, or another device has taken `device` for itself."""
    return _is_taken(device.path)


def _is_taken(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    return False


@dataclass(frozen=True, slots=True)
class Detached:
    """A file system that is mounted nowhere: the mount's descriptor, and its root."""

    mount: int
    root: HostRoot


@contextmanager
def detached(definition: PoolDefinition, format: Format, device: Device, place: str) -> Iterator[Detached]:
    """The file system on `device`, unmounted with the context unless it was put in its place.

    Its root belongs to the caller and says that it is at `place`. Raises `StorageError`.
    """
    mount = _mount_detached(definition, format, device)
    try:
        root = HostRoot(place, Descriptor(os.open(".", _DIRECTORY, dir_fd=mount)))
        yield Detached(mount, root)
    finally:
        os.close(mount)


def mend(definition: PoolDefinition, format: Format, device: Device) -> None:
    """Have a file system checked before it is mounted that was not unmounted, or has errors.

    The kernel would replay the journal, too, but mounts a file system as well of which the journal tells
    that there are errors in it. Raises `StorageError` with the check's words when it is still damaged
    afterwards.
    """
    found = superblocks.read(device.fd)
    if found is None or not (found.flawed or found.unclean) or is_used(device):
        return
    if found.flawed:
        log.warning(
            "pool %s: the %s file system on %s has errors; it is checked",
            definition.name,
            format.name,
            device.origin,
        )
    if left := format.mended(device):
        raise StorageError(
            f"pool {definition.name}: the {format.name} file system on {device.origin} is damaged; the check "
            f"says: {left}; mend it with `{format.check} {device.origin}`",
            errno=errno.EUCLEAN,
        )


def _mount_detached(definition: PoolDefinition, format: Format, device: Device) -> int:
    """With the options of the format, as far as the kernel takes them, and of the definition."""
    given = definition.source.options or ""
    found = superblocks.read(device.fd) if format.tells_quota else None
    options = format.options if found is None or found.wants_quota else format.options[-1:]
    for last, own in enumerate(options, start=1 - len(options)):
        try:
            return mounting.mount_detached(device.path, format.name, ",".join(filter(None, (own, given))))
        except OSError as error:
            if not last or error.errno not in _REFUSED_OPTION:
                raise _cannot_mount(definition, format, device, error) from error
    raise AssertionError("every format has options")


def _cannot_mount(definition: PoolDefinition, format: Format, device: Device, error: OSError) -> StorageError:
    told = getattr(error, "told", "") or "the kernel's log (dmesg) may tell more"
    advice = f"; look at it with `{format.check} {device.origin}`" if error.errno != errno.ENODEV else ""
    if error.errno in _DAMAGED:
        if said := format.diagnosis(device.path):
            told = f"{told}; the check says: {said}"
        elif error.errno == errno.EINVAL and (without := _without_quota(format, device)):
            told = f"{told}; it was made for a kernel with quota (CONFIG_QFMT_V2), which this one may lack"
            advice = f"; start the pool where the kernel has it, or give up limits of items with `{without}`"
    options = f" with options {definition.source.options!r}" if definition.source.options else ""
    return StorageError(
        f"pool {definition.name}: the {format.name} file system on {device.origin} cannot be "
        f"mounted{options}: {os.strerror(error.errno or 5)} ({told}){advice}",
        errno=error.errno,
    )


def _without_quota(format: Format, device: Device) -> str:
    """The command that lets a kernel without quota mount what is on `device`; empty where none is needed."""
    found = superblocks.read(device.fd)
    if found is None or not found.wants_quota or format.drop_quota is None:
        return ""
    return f"{format.drop_quota} {device.origin}"


def unmount(definition: PoolDefinition, provider: VolumeProvider, place: str, *, force: bool) -> None:
    """Unmount the pool's file system, as often as it is mounted at `place`; none is no error.

    Raises `BusyError` naming who uses it; with `force` it is taken out of the tree all the same, unless
    another mount covers it. Who
    uses it in a mount namespace of his own does not keep it from being unmounted here, only its device
    from being free.
    """
    table = mounts.mounts()
    refuse_covered(definition, provider, place, table)
    device, mount = "", pools_mount(definition, provider, place, table)
    while mount is not None:
        device = mount.source
        try:
            if force:
                mounts.unmount_lazily(place)
            else:
                mounts.unmount(place)
        except OSError as error:
            if error.errno == errno.EINVAL:  # somebody else was quicker
                return
            if error.errno == errno.EBUSY:
                raise busy(definition, place) from None
            raise
        mount = pools_mount(definition, provider, place)
    if device and not force and _is_left_taken(device) and (found := _holders(place)):
        raise _busy(definition, place, found)


def _is_left_taken(path: str) -> bool:
    try:
        return _is_taken(path)
    except OSError:  # a disk that has failed can be let go, too
        return False


def _holders(place: str) -> list[MountUse]:
    with suppress(OSError):
        return holders(place)
    return []


def busy(definition: PoolDefinition, place: str, *, own: Collection[str] = ()) -> BusyError:
    """That what is mounted at `place` cannot be unmounted, and by whom it is used.

    Mounts in it from the file system types `own` are not somebody's.
    """
    return _busy(definition, place, _holders(place), own)


def _lies_in(mount: mounts.Mount, place: str) -> bool:
    return mount.target != place and mounts.is_beneath(mount.target, place)


def _busy(
    definition: PoolDefinition, place: str, holding: Sequence[MountUse], own: Collection[str] = ()
) -> BusyError:
    found = [f"process {use.pid} ({use.command}) at {use.target}" for use in holding]
    others = [mount for mount in mounts.mounts() if _lies_in(mount, place) and mount.fs_type not in own]
    found += [f"a mount at {mount.target}" for mount in others]
    who = f"by {', '.join(found[:_NAMED])}" if found else "by a process that cannot be seen"
    return BusyError(
        f"pool {definition.name}: {place} is in use {who}; end that, or write destroy into status"
    )
