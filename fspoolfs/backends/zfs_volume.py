"""Volume pools of format zfs: a zpool on the volume, its root dataset mounted at the target.

The zpool is called after the pool and its UUID, so that a volume says whose it is, and is imported for
as long as the pool is active. It is in no cache file and nothing of it is mounted by anybody else. Items
are datasets of it, see `fspoolfs.backends.zfs_root`.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import ClassVar
from uuid import UUID

from fspoolfs.backends import place as places
from fspoolfs.backends import volume_lock, volume_mounts
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.backends.volume_source import ProvidedSource
from fspoolfs.backends.volumes.provider import Device, VolumeProvider
from fspoolfs.backends.zfs_root import HOLD, ROOT, ZfsRoot, hold_of, mounted, settle
from fspoolfs.errors import (
    BusyError,
    ExistsError,
    FspoolError,
    InvalidError,
    NotEmptyError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import mounting, mounts, probe, zfs
from fspoolfs.system.descriptors import Descriptor

log = logging.getLogger(__name__)

FORMAT = "zfs"
_SIGNATURE = "zfs_member"
#: What zpool takes as a name, but for those that begin like the kinds of its devices.
_USABLE = re.compile(r"(?!mirror|raidz|draid|spare|log|c\d)[A-Za-z][A-Za-z0-9_.-]*")
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
        return _zpool_on(definition, device) is not None

    def make(self, definition: PoolDefinition, device: Device, progress: Progress, *, fresh: bool) -> None:
        progress.advance(0)
        name = zpool_of(definition)
        _refuse_name(definition, name, zfs.imported())
        zfs.create_pool(name, device.path, hold_of(name), inherited=[device.fd])
        zfs.create(f"{name}/{ROOT}", {"canmount": "noauto"})
        zfs.export_pool(name)

    def refuse_leftovers(self, definition: PoolDefinition, device: Device) -> None:
        name = _zpool_on(definition, device)
        assert name is not None, "only asked about the pool's own"
        _import(definition, name, device)
        try:
            with _opened(definition, name, places.place_of(definition)) as root:
                places.refuse_leftovers(definition, root)
        finally:
            _export(name)


def _zpool_on(definition: PoolDefinition, device: Device) -> str | None:
    """The name of the pool's zpool, as the device says it; `None` when it holds something else."""
    found = probe.content(device.path)
    if found is None or found.type != _SIGNATURE or found.known_uuid != definition.uuid:
        return None
    return found.label


def _refuse_name(definition: PoolDefinition, name: str, imported: set[str]) -> None:
    if name in imported:
        raise BusyError(
            f"pool {definition.name}: a zpool called {name} is imported on this host from another device; "
            "export it first (zpool export), since no two can have one name"
        )


def _import(definition: PoolDefinition, name: str, device: Device) -> None:
    """Import the zpool on `device` unless it is; never one of the same name that is elsewhere."""
    if name in zfs.imported():
        if not _is_imported_from(name, device):
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
    """The directory that a zpool is imported from, where it goes on looking for its device."""
    return f"{HOLD}/.devices/{name}"


def _export(name: str, *, patient: bool = True) -> None:
    zfs.export_pool(name, patient=patient)
    shutil.rmtree(_devices_of(name), ignore_errors=True)


def _is_imported_from(name: str, device: Device) -> bool:
    return _known_as(name, device) is not None


def _is_on(definition: PoolDefinition, name: str, provider: VolumeProvider) -> bool:
    """Whether an imported zpool lies on the pool's volume."""
    for word in zfs.devices_of(name):
        path = word if word.startswith("/") else f"/dev/{word}"
        if os.path.exists(path) and provider.is_behind(definition, os.path.realpath(path)):
            return True
    return False


def _known_as(name: str, device: Device) -> str | None:
    """What an imported zpool calls `device`, if it is one of its."""
    base = os.path.basename(device.path)
    return next((word for word in zfs.devices_of(name) if os.path.basename(word) == base), None)


def _fill(name: str, device: Device) -> None:
    """Let the zpool use all of its device."""
    known = _known_as(name, device)
    if known is not None:
        zfs.fill_device(name, known)


@contextmanager
def _opened(definition: PoolDefinition, name: str, place: str) -> Iterator[ZfsRoot]:
    """The root of an imported zpool, mounted nowhere."""
    with (
        mounted(f"{name}/{ROOT}", definition.source.options or "") as tree,
        closing(_root(definition, name, place, os.open(".", _DIRECTORY, dir_fd=tree))) as root,
    ):
        yield root


def _root(definition: PoolDefinition, name: str, place: str, fd: int) -> ZfsRoot:
    return ZfsRoot(place, Descriptor(fd), name, definition.source.options or "")


class ZfsVolumeSource(ProvidedSource):
    """`Source` for pools of type "volume" and format "zfs"."""

    format: ClassVar[str] = FORMAT

    def unusable(self) -> str:
        return super().unusable() or zfs.unusable()

    def lacks(self, definition: PoolDefinition) -> bool:
        return self._provider_name(definition) not in self._providers

    def parts(self) -> Mapping[str, str]:
        return {f"format {FORMAT}": zfs.unusable()}

    def check(self, definition: PoolDefinition) -> None:
        super().check(definition)
        if unknown := mounting.unsupported_options(definition.source.options or ""):
            raise InvalidError(
                f"pool {definition.name}: zfs has no mount option {unknown[0]!r}; what it has as a property "
                "is set with `zfs set`"
            )

    def carried(self, definition: PoolDefinition) -> UUID | None:
        provider = self._provider(definition)
        try:
            if self.unusable() or provider.unusable() or provider.size(definition) is None:
                return None
            found = self._content(definition, provider)
        except (OSError, FspoolError):
            return None  # a start will say what is wrong with it
        if found is None or found.type != _SIGNATURE or not found.label.startswith(f"{definition.name}-"):
            return None
        return found.known_uuid

    def _usable(self, definition: PoolDefinition) -> VolumeProvider:
        """Raises `UnsupportedError` where the pool's volume or zfs is not usable on this host."""
        provider = self._provider(definition)
        if reason := self.unusable() or provider.unusable():
            raise UnsupportedError(f"pool {definition.name}: its volume cannot be used here: {reason}")
        return provider

    # -- build and delete -------------------------------------------------------------------------

    def build(self, definition: PoolDefinition, mode: BuildMode, progress: Progress) -> None:
        """Make the volume and a zpool on it where they are missing, and the target."""
        progress.begin("building")
        provider = self._usable(definition)
        self._builder.build(definition, provider, ZfsMaker(), mode, progress)
        provider.release(definition)
        places.make(definition)

    def delete(self, definition: PoolDefinition) -> None:
        provider = self._usable(definition)
        places.usable_place(definition)
        self.detach(definition, force=False)  # of what a crash has left
        try:
            with provider.open(definition) as device:
                volume_lock.lock(definition, device, None)
                self._builder.erase(definition, ZfsMaker(), device)
        except NotFoundError:
            self._builder.forget(definition)
        provider.release(definition)
        provider.remove(definition)
        places.remove_empty(definition)

    # -- attach and detach ------------------------------------------------------------------------

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        provider = self._usable(definition)
        root: ZfsRoot | None = None
        try:
            with provider.open(definition) as device:
                volume_lock.lock(definition, device, progress)
                name = self._check_pools_own(definition, device)
                if definition.capacity is not None and definition.capacity > device.size:
                    provider.grow(definition, definition.capacity)
                _import(definition, name, device)
                _fill(name, device)
            root = self._root_of(definition, name)
            root.mount_all(progress)
            self._check_health(definition, name)
            return root
        except BaseException:
            if root is not None:
                root.close()
            self.detach(definition, force=False)
            raise

    def _root_of(self, definition: PoolDefinition, name: str) -> ZfsRoot:
        """The root dataset, mounted at the target now if it was not."""
        place = places.place_of(definition)
        _clear_dead(definition, place)
        if not os.path.exists(place):
            places.make(definition)
        found = mounts.mount_at(place)
        if found is not None and _is_pools(definition, found):
            return _root(definition, name, place, os.open(place, _DIRECTORY))
        if found is not None:
            raise BusyError(
                f"pool {definition.name}: {found.source} is mounted at its target {place}; unmount it, or "
                "give the pool another target"
            )
        if os.listdir(place):
            raise NotEmptyError(
                f"pool {definition.name}: its target {place} holds files, which the volume would hide; move "
                "them away, or give the pool another target"
            )
        target = os.open(place, _DIRECTORY | os.O_NOFOLLOW)
        try:
            with mounted(f"{name}/{ROOT}", definition.source.options or "") as tree:
                root = _root(definition, name, place, os.open(".", _DIRECTORY, dir_fd=tree))
                mounting.move(tree, target)
                mounting.share(tree)
                return root
        finally:
            os.close(target)

    def _check_pools_own(self, definition: PoolDefinition, device: Device) -> str:
        """The name of the zpool on `device`. Raises `FspoolError` unless it is the pool's, and whole."""
        name, path = definition.name, device.origin
        found = probe.content(device.path)
        if found is None:
            raise NotFoundError(f"pool {name}: {path} holds no file system; build the pool first")
        if found.type != _SIGNATURE or found.known_uuid != definition.uuid:
            raise ExistsError(
                f"pool {name}: {path} holds {found}, not a zpool whose name ends with the pool's UUID "
                f"{definition.uuid}; define the pool with the uuid and the format that are there, or give it "
                "another volume"
            )
        if self._builder.is_interrupted(definition):
            raise NotFoundError(f"pool {name}: formatting {path} was interrupted; build the pool first")
        return found.label

    def _check_health(self, definition: PoolDefinition, name: str) -> None:
        health = zfs.health(name)
        if health != "ONLINE":
            raise StorageError(
                f"pool {definition.name}: its zpool {name} is {health}; `zpool status -v {name}` says why",
                errno=errno.EIO,
            )

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        """Unmount all datasets and export the zpool.

        With `force`, what somebody uses elsewhere keeps the zpool imported until he has done.
        """
        if os.geteuid() != 0:
            return  # nothing can have been attached
        provider, place = self._provider(definition), places.place_of(definition)
        seen = mounts.mount_at(place)
        if seen is not None and _is_pools(definition, seen):
            _unmount_all(definition, place, force=force)
        if not zfs.unusable():
            self._export(definition, place, force=force)
        provider.release(definition)

    def _export(self, definition: PoolDefinition, place: str, *, force: bool) -> None:
        provider = self._provider(definition)
        for name in zfs.imported():
            # A copy of the volume has the same name.
            if not name.endswith(f"-{definition.uuid}") or not _is_on(definition, name, provider):
                continue
            try:
                _export(name, patient=not force)
            except FspoolError as error:
                if not force:
                    raise volume_mounts.busy(definition, place) from error
                log.warning("pool %s: its zpool %s stays imported: %s", definition.name, name, error)

    # -- size -------------------------------------------------------------------------------------

    def grow(
        self, definition: PoolDefinition, root: RootDirectory, capacity: int, progress: Progress
    ) -> None:
        """The volume first, then its device, then the zpool, all while it is in use."""
        self.verify(definition, root)
        assert isinstance(root, ZfsRoot)
        provider = self._usable(definition)
        if not zfs.grows_online(root.filesystem_magic()):
            raise UnsupportedError(
                f"pool {definition.name} cannot grow while it is active: zfs-fuse sees a larger device "
                "only when the zpool is imported; stop it, write the capacity again, and start it"
            )
        progress.begin("growing")
        provider.grow(definition, capacity)
        with provider.open(definition) as device:
            volume_lock.lock(definition, device, progress)
            _fill(root.pool, device)

    def check_shrink(self, definition: PoolDefinition, capacity: int, *, active: bool) -> None:
        raise UnsupportedError(
            f"pool {definition.name} cannot shrink: zfs never does; make another pool and move the items"
        )

    def shrink(
        self, definition: PoolDefinition, root: RootDirectory | None, capacity: int, progress: Progress
    ) -> None:
        self.check_shrink(definition, capacity, active=root is not None)


def _is_pools(definition: PoolDefinition, mount: mounts.Mount) -> bool:
    """Whether what is mounted is the root dataset of the pool's zpool."""
    return mount.fs_type in zfs.TYPES and mount.source.endswith(f"-{definition.uuid}/{ROOT}")


def _clear_dead(definition: PoolDefinition, place: str) -> None:
    """Take away what a zfs-fuse has left at the target that has died."""
    while mounts.is_stale_fuse(place):
        found = mounts.mount_at(place)
        if found is None or not _is_pools(definition, found):
            return
        mounts.unmount_lazily(place)


def _unmount_all(definition: PoolDefinition, place: str, *, force: bool) -> None:
    """Unmount what lies at and below `place`, the deepest first. Raises `BusyError`."""
    if force:
        while (found := mounts.mount_at(place)) is not None and _is_pools(definition, found):
            mounts.unmount_lazily(place)
        return
    below = [mount.target for mount in mounts.mounts() if mounts.is_beneath(mount.target, place)]
    for target in sorted(below, key=len, reverse=True):
        settle(target)
        try:
            mounts.unmount(target)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise volume_mounts.busy(definition, place) from error
            if error.errno != errno.EINVAL:
                raise
