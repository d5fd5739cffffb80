"""Volume pools of format zfs: a zpool on the volume, its root dataset mounted at the target.

The zpool is called after the pool and its UUID, so that a volume says whose it is, and is imported for
as long as the pool is active. It is in no cache file and nothing of it is mounted by anybody else. Items
are datasets of it, see `fspoolfs.backends.zfs_root`.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from typing import ClassVar

from fspoolfs.backends import place as places
from fspoolfs.backends import volume_lock, volume_mounts
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.backends.volume_source import ProvidedSource
from fspoolfs.backends.volumes.provider import Device, VolumeProvider
from fspoolfs.backends.zfs_mounts import mounted, put_aside, settle
from fspoolfs.backends.zfs_pools import (
    FORMAT,
    SIGNATURE,
    ZfsMaker,
    export,
    fill,
    import_from,
    is_on,
    root_on,
)
from fspoolfs.backends.zfs_root import ROOT, ZfsRoot
from fspoolfs.errors import (
    BusyError,
    ExistsError,
    InvalidError,
    NotFoundError,
    StorageError,
    UnsupportedError,
)
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Feature
from fspoolfs.progress import Progress
from fspoolfs.system import mounting, mounts, probe, zfs

log = logging.getLogger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ZfsVolumeSource(ProvidedSource):
    """`Source` for pools of type "volume" and format "zfs"."""

    format: ClassVar[str] = FORMAT

    def unusable(self) -> str:
        return super().unusable() or zfs.unusable()

    def lacks(self, definition: PoolDefinition) -> bool:
        return self._provider_name(definition) not in self._providers

    def parts(self) -> Sequence[Feature]:
        return [Feature(name=f"format {FORMAT}", reason=zfs.unusable(), note=zfs.version())]

    def check(self, definition: PoolDefinition) -> None:
        super().check(definition)
        if unknown := mounting.unsupported_options(definition.source.options or ""):
            raise InvalidError(
                f"pool {definition.name}: zfs has no mount option {unknown[0]!r}; what it has as a property "
                "is set with `zfs set`"
            )

    def _is_called_so(self, definition: PoolDefinition, found: probe.Content) -> bool:
        return found.type == SIGNATURE and found.label.startswith(f"{definition.name}-")

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
        seen = mounts.mount_at(places.place_of(definition))
        if mode is BuildMode.NO_OVERWRITE and seen is not None and _is_pools(definition, seen):
            return
        # What a crash has left imported: zfs-fuse keeps nobody else from writing to its devices.
        self.detach(definition, force=False)
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
                import_from(definition, name, device)
                fill(name, device)
            root = self._root_of(definition, name)
            root.mount_all(progress)
            self._check_health(definition, name)
            return root
        except BaseException as error:
            if root is not None:
                root.close()
            if isinstance(error, BusyError):  # no more can be taken away before that has ended
                _unmount_all(places.place_of(definition), lazily=True)
            else:
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
            return root_on(definition, name, place, os.open(place, _DIRECTORY))
        self._refuse_target(definition, found)
        target = os.open(place, _DIRECTORY | os.O_NOFOLLOW)
        try:
            with mounted(f"{name}/{ROOT}", definition.source.options or "") as tree:
                mounting.move(tree, target)
                mounting.share(tree)
                return root_on(definition, name, place, os.open(".", _DIRECTORY, dir_fd=tree))
        finally:
            os.close(target)

    def _check_pools_own(self, definition: PoolDefinition, device: Device) -> str:
        """The name of the zpool on `device`. Raises `FspoolError` unless it is the pool's, and whole."""
        name, path = definition.name, device.origin
        found = probe.content(device.path)
        if found is None:
            raise NotFoundError(f"pool {name}: {path} holds no file system; build the pool first")
        if found.type != SIGNATURE or found.known_uuid != definition.uuid:
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

        With `force`, what somebody uses keeps the zpool imported; it is exported with the next stop.
        """
        if os.geteuid() != 0:
            return  # nothing can have been attached
        provider, place = self._provider(definition), places.place_of(definition)
        seen = mounts.mount_at(place)
        if seen is not None and _is_pools(definition, seen) and not _unmount_all(place, lazily=force):
            if not force:
                raise volume_mounts.busy(definition, place, own=zfs.TYPES)
            log.warning("pool %s: somebody uses it, and its zpool stays imported", definition.name)
            return
        if not zfs.unusable():
            self._export_all(definition, place)
        provider.release(definition)

    def _export_all(self, definition: PoolDefinition, place: str) -> None:
        provider = self._provider(definition)
        for name in zfs.imported():
            # A copy of the volume has the same name.
            if not name.endswith(f"-{definition.uuid}") or not is_on(definition, name, provider):
                continue
            try:
                export(name)
            except StorageError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise volume_mounts.busy(definition, place, own=zfs.TYPES) from error

    # -- size -------------------------------------------------------------------------------------

    def grow(
        self, definition: PoolDefinition, root: RootDirectory, capacity: int, progress: Progress
    ) -> None:
        """The volume first, then its device, then the zpool, all while it is in use."""
        self.verify(definition, root)
        assert isinstance(root, ZfsRoot)
        provider = self._usable(definition)
        if zfs.is_fuse(root.filesystem_magic()):
            raise UnsupportedError(
                f"pool {definition.name} cannot grow while it is active: zfs-fuse sees a larger device "
                "only when the zpool is imported; stop it, write the capacity again, and start it"
            )
        progress.begin("growing")
        provider.grow(definition, capacity)
        with provider.open(definition) as device:
            volume_lock.lock(definition, device, progress)
            fill(root.pool, device)

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


def _unmount_all(place: str, *, lazily: bool) -> bool:
    """Unmount what lies at and below `place`, the deepest first; whether nobody used any of it.

    What is used stays, and what it lies in, unless it is to be unmounted `lazily`.
    """
    below = [mount for mount in mounts.mounts() if mounts.is_beneath(mount.target, place)]
    unused = True
    for mount in sorted(below, key=lambda one: len(one.target), reverse=True):
        settle(mount.target)
        try:
            mounts.unmount(mount.target)
        except OSError as error:
            if error.errno == errno.EINVAL:  # somebody else was quicker
                continue
            if error.errno == errno.ENOTCONN:  # its zfs-fuse is dead, and nothing in it can be reached
                mounts.unmount_lazily(place)
                return True
            if error.errno != errno.EBUSY:
                raise
            unused = False
            if not lazily:
                break
            _take_out(mount, place)
    return unused


def _take_out(mount: mounts.Mount, place: str) -> None:
    """Out of the tree, although it is used."""
    try:
        root = os.open(place, _DIRECTORY)
        try:
            mounting.stop_sharing(root)
        finally:
            os.close(root)
        put_aside(mount)
    except OSError as error:  # what it lies in is shared, or it is a dead one
        log.warning("%s is unmounted although it is used: %s", mount.source, error)
        mounts.unmount_lazily(mount.target)
