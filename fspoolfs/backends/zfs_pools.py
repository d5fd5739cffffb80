"""The zpool on a pool's volume: its name, making it, importing it from that device alone, exporting it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from fspoolfs.backends import place as places
from fspoolfs.backends.volumes.provider import Device, VolumeProvider
from fspoolfs.backends.zfs_mounts import HOLD, hold_of, let_go, mounted
from fspoolfs.backends.zfs_root import ROOT, ZfsRoot
from fspoolfs.errors import BusyError, FspoolError, StorageError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import probe, zfs
from fspoolfs.system.descriptors import Descriptor

FORMAT = "zfs"
SIGNATURE = "zfs_member"
#: What zpool takes as a name, but for those that begin like the kinds of its devices.
_USABLE = re.compile(r"(?!mirror|raidz|draid|spare|log|c\d)[A-Za-z][A-Za-z0-9_.-]*")
#: Where there are names of devices for OpenZFS: links in this directory, and nodes beside it.
_NODES = "/dev/fspoolfs"
#: Bytes of a pool's name that its zpool's begins with; the UUID follows, and the names of datasets.
_NAMED = 100
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def zpool_of(definition: PoolDefinition) -> str:
    """The name of a new zpool for the pool."""
    name = definition.name[:_NAMED]
    return f"{name if _USABLE.fullmatch(name) else 'fspool'}-{definition.uuid}"


class ZfsMaker:
    """`Maker` for zpools."""

    def is_pools(self, definition: PoolDefinition, device: Device) -> bool:
        return zpool_on(definition, device) is not None

    def make(self, definition: PoolDefinition, device: Device, progress: Progress, *, fresh: bool) -> None:
        progress.advance(0)
        name = zpool_of(definition)
        _refuse_name(definition, name, zfs.imported())
        with _plainly_named(definition, device) as path:
            zfs.create_pool(name, path, hold_of(name), inherited=[device.fd])
            zfs.create(f"{name}/{ROOT}")
            zfs.export_pool(name)
        if zpool_on(definition, device) is None:
            raise StorageError(
                f"pool {definition.name}: zpool has put something else than the zpool alone onto "
                f"{device.origin}, such as a partition table, so that it could not be told whose it is"
            )

    def refuse_leftovers(self, definition: PoolDefinition, device: Device) -> None:
        name = zpool_on(definition, device)
        assert name is not None, "only asked about the pool's own"
        import_from(definition, name, device)
        try:
            with opened(definition, name, places.place_of(definition)) as root:
                places.refuse_leftovers(definition, root)
        finally:
            export(name)


def zpool_on(definition: PoolDefinition, device: Device) -> str | None:
    """The name of the pool's zpool, as the device says it; `None` when it holds something else."""
    found = probe.content(device.path)
    if found is None or found.type != SIGNATURE or found.known_uuid != definition.uuid:
        return None
    return found.label


def _refuse_name(definition: PoolDefinition, name: str, imported: set[str]) -> None:
    if name in imported:
        raise BusyError(
            f"pool {definition.name}: a zpool called {name} is imported on this host from another device; "
            "export it first (zpool export), since no two can have one name"
        )


def import_from(definition: PoolDefinition, name: str, device: Device) -> None:
    """Import the zpool on `device` unless it is; never one of the same name that is elsewhere."""
    if name in zfs.imported():
        if not is_imported_from(name, device):
            _refuse_name(definition, name, {name})
        return
    # Only this device is looked at, whatever else there is on the host.
    directory = _devices_of(name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory, mode=0o700)
    os.symlink(device.path, f"{directory}/{os.path.basename(device.path)}")
    try:
        zfs.import_pool(name, directory)
    except FspoolError as error:
        raise StorageError(
            f"pool {definition.name}: the zpool on {device.origin} cannot be imported: {error}; look at it "
            f"with `zpool import -d {os.path.dirname(device.path)}`",
            errno=errno.EIO,
        ) from error


def _devices_of(name: str) -> str:
    """The directory that a zpool is imported from, where it goes on looking for its device.

    OpenZFS does so from the mount namespace of the host's first process, with which /dev is shared.
    """
    return f"{_NODES}/{name}" if zfs.is_openzfs() else f"{HOLD}/.devices/{name}"


@contextmanager
def _plainly_named(definition: PoolDefinition, device: Device) -> Iterator[str]:
    """A path by which a zpool is made on just `device`.

    What has the name of a disk OpenZFS takes for one that it has to partition.
    """
    number = os.fstat(device.fd).st_rdev
    known = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    if not zfs.is_openzfs() or os.path.exists(f"{known}/loop") or os.path.exists(f"{known}/dm"):
        yield device.path
        return
    node = f"{_NODES}.{definition.uuid}"
    with suppress(FileNotFoundError):
        os.unlink(node)  # of a build that was interrupted
    os.mknod(node, stat.S_IFBLK | 0o600, number)
    try:
        yield node
    finally:
        os.unlink(node)


def _device_at(path: str) -> str:
    """The path that the kernel gives the device behind `path`."""
    if not path.startswith(f"{_NODES}."):
        return os.path.realpath(path)
    number = os.stat(path).st_rdev
    link = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    return f"/dev/{os.path.basename(link)}"


def export(name: str) -> None:
    let_go(name)
    zfs.export_pool(name)
    shutil.rmtree(_devices_of(name), ignore_errors=True)


def is_imported_from(name: str, device: Device) -> bool:
    return known_as(name, device) is not None


def is_on(definition: PoolDefinition, name: str, provider: VolumeProvider) -> bool:
    """Whether an imported zpool lies on the pool's volume."""
    for word in zfs.devices_of(name):
        path = word if word.startswith("/") else f"/dev/{word}"
        if os.path.exists(path) and provider.is_behind(definition, _device_at(path)):
            return True
    return False


def known_as(name: str, device: Device) -> str | None:
    """What an imported zpool calls `device`, if it is one of its."""
    base = os.path.basename(device.path)
    return next((word for word in zfs.devices_of(name) if os.path.basename(word) == base), None)


def fill(name: str, device: Device) -> None:
    """Let the zpool use all of its device."""
    known = known_as(name, device)
    if known is not None:
        zfs.fill_device(name, known)


@contextmanager
def opened(definition: PoolDefinition, name: str, place: str) -> Iterator[ZfsRoot]:
    """The root of an imported zpool, mounted nowhere."""
    with (
        mounted(f"{name}/{ROOT}", definition.source.options or "") as tree,
        closing(root_on(definition, name, place, os.open(".", _DIRECTORY, dir_fd=tree), alone=True)) as root,
    ):
        yield root


def root_on(definition: PoolDefinition, name: str, place: str, fd: int, *, alone: bool = False) -> ZfsRoot:
    return ZfsRoot(place, Descriptor(fd), name, definition.source.options or "", alone=alone)
