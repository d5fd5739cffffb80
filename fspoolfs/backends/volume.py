"""Volume pools: a block device with a file system of the pool's own, mounted at the target.

Where the device comes from is a `VolumeProvider`'s business, how it is formatted a row of
`fspoolfs.backends.formats`. The file system carries the pool's UUID, and nothing is mounted, enlarged
or erased that carries another one. Whatever is at the target is looked at, never assumed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import ClassVar

from fspoolfs.backends import formats, volume_lock, volume_mounts, volume_sizes
from fspoolfs.backends import place as places
from fspoolfs.backends.formats import FORMATS, Format
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.backends.volume_building import FormatMaker
from fspoolfs.backends.volume_source import ProvidedSource
from fspoolfs.backends.volumes.provider import Device, VolumeProvider
from fspoolfs.errors import (
    BusyError,
    ExistsError,
    FspoolError,
    NotFoundError,
    UnsupportedError,
)
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Feature
from fspoolfs.progress import Progress
from fspoolfs.system import mounting, mounts, probe, superblocks
from fspoolfs.system.paths import HostRoot

_TARGET = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class VolumeSource(ProvidedSource):
    """`Source` for pools of type "volume" whose file system is mounted from its device."""

    format: ClassVar[str] = ""

    # -- what there is ----------------------------------------------------------------------------

    def lacks(self, definition: PoolDefinition) -> bool:
        format = definition.source.format
        return self._provider_name(definition) not in self._providers or format not in (None, *FORMATS)

    def parts(self) -> Sequence[Feature]:
        reasons = {f"provider {one.name}": one.unusable() for one in self._providers.values()}
        reasons |= {f"format {one.name}": one.missing() for one in FORMATS.values()}
        return [Feature(name=name, reason=reason) for name, reason in reasons.items()]

    def _format(self, definition: PoolDefinition) -> Format:
        return FORMATS.get(definition.source.format or "", formats.DEFAULT)

    def _is_called_so(self, definition: PoolDefinition, found: probe.Content) -> bool:
        format = self._format(definition)
        return (found.type, found.label) == (format.name, format.cut_label(definition.name))

    # -- build and delete -------------------------------------------------------------------------

    def build(self, definition: PoolDefinition, mode: BuildMode, progress: Progress) -> None:
        """Make the volume and a file system on it where they are missing, and the target.

        What a volume holds that is not the pool's is kept, and refused, unless `mode` says otherwise.
        """
        progress.begin("building")
        provider, format = self._usable(definition)
        if reason := format.missing():
            raise UnsupportedError(f"pool {definition.name} cannot be formatted: {reason}")
        self._builder.build(definition, provider, FormatMaker(format), mode, progress)
        if self._mounted(definition) is None:
            provider.release(definition)
        places.make(definition)

    def delete(self, definition: PoolDefinition) -> None:
        """Erase the pool's file system if it holds nothing but fspoolfs' own files.

        Then remove the volume, if it was made here, and the target.
        """
        provider, format = self._usable(definition)
        places.usable_place(definition)
        if self._mounted(definition) is not None:  # left by a crash
            self.detach(definition, force=False)
        try:
            with provider.open(definition) as device:
                volume_lock.lock(definition, device, None)
                self._builder.erase(definition, FormatMaker(format), device)
        except NotFoundError:
            self._builder.forget(definition)
        provider.release(definition)
        provider.remove(definition)
        places.remove_empty(definition)

    def _usable(self, definition: PoolDefinition) -> tuple[VolumeProvider, Format]:
        """What serves the pool. Raises `UnsupportedError` where that is not usable on this host."""
        provider = self._provider(definition)
        if reason := self.unusable() or provider.unusable():
            raise UnsupportedError(f"pool {definition.name}: volumes cannot be used here: {reason}")
        return provider, self._format(definition)

    def _mounted(self, definition: PoolDefinition) -> mounts.Mount | None:
        provider = self._provider(definition)
        return volume_mounts.pools_mount(definition, provider, places.place_of(definition))

    # -- attach and detach ------------------------------------------------------------------------

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        if self._mounted(definition) is None:
            self._usable(definition)
        # What is mounted is taken up whether or not its provider could mount it now.
        provider, format = self._provider(definition), self._format(definition)
        with provider.open(definition) as device:
            volume_lock.lock(definition, device, progress)
            self._check_pools_own(definition, format, device)
            if definition.capacity is not None and definition.capacity > device.size:
                provider.grow(definition, definition.capacity)
            root = self._root_of(definition, format, device)
            try:
                volume_sizes.fill(format, device, root)
            except BaseException:
                root.close()
                self.detach(definition, force=False)
                raise
            return root

    def _root_of(self, definition: PoolDefinition, format: Format, device: Device) -> HostRoot:
        """The root of the file system on `device`, mounted at the target now if it was not."""
        place = places.place_of(definition)
        # A volume that was carried here brings all but its mount point.
        if not os.path.exists(place):
            places.make(definition)
        target = _open_target(definition, place)
        try:
            table = mounts.mounts()
            mounted = mounts.mount_at(place, table)
            if mounted is not None and volume_mounts.shows(mounted, device):
                root = HostRoot.open(place)
                if root.mount_id() == mounted.mount_id:
                    return root
                root.close()
                raise BusyError(
                    f"pool {definition.name}: {place} is being mounted by somebody else; try again"
                )
            self._refuse_target(definition, mounted)
            volume_mounts.refuse_other_mounts(definition, device, table)
            volume_mounts.mend(definition, format, device)
            volume_sizes.fill_unmounted(format, device)
            with volume_mounts.detached(definition, format, device, place) as found:
                format.tidy(found.root)
                mounting.move(found.mount, target)
                return found.root
        finally:
            os.close(target)

    def _check_pools_own(self, definition: PoolDefinition, format: Format, device: Device) -> None:
        """Raise `FspoolError` unless `device` holds the whole file system of the pool."""
        name, path = definition.name, device.origin
        if FormatMaker(format).is_pools(definition, device):
            found = superblocks.read(device.fd)
            if self._builder.is_interrupted(definition):
                raise NotFoundError(f"pool {name}: formatting {path} was interrupted; build the pool first")
            if found is not None and found.size > device.size:
                raise FspoolError(
                    f"pool {name}: {path} has {device.size} bytes, and the file system on it needs "
                    f"{found.size}: the volume was cut off; put back what is missing",
                    errno=errno.EIO,
                )
            return
        content = probe.content(device.path)
        if content is None:
            raise NotFoundError(f"pool {name}: {path} holds no file system; build the pool first")
        raise ExistsError(
            f"pool {name}: {path} holds {content}, not the pool's {format.name} file system with UUID "
            f"{definition.uuid}; define the pool with the uuid and the format that are there, or give it "
            "another volume"
        )

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        if os.geteuid() != 0:
            return  # nothing can have been attached
        provider = self._provider(definition)
        volume_mounts.unmount(definition, provider, places.place_of(definition), force=force)
        provider.release(definition)

    # -- size -------------------------------------------------------------------------------------

    def grow(
        self, definition: PoolDefinition, root: RootDirectory, capacity: int, progress: Progress
    ) -> None:
        """The volume first, then its device, then the file system, all while it is in use."""
        self.verify(definition, root)
        assert isinstance(root, HostRoot)
        provider, format = self._usable(definition)
        if reason := format.missing() or format.why_not_online():
            raise UnsupportedError(
                f"pool {definition.name} cannot grow while it is active: {reason}; stop it, write the "
                "capacity again, and start it"
            )
        progress.begin("growing")
        provider.grow(definition, capacity)
        with provider.open(definition) as device:
            volume_lock.lock(definition, device, progress)
            volume_sizes.fill(format, device, root)

    def check_shrink(self, definition: PoolDefinition, capacity: int, *, active: bool) -> None:
        provider, format = self._usable(definition)
        volume_sizes.check_shrink(definition, provider, format, active=active)

    def shrink(
        self, definition: PoolDefinition, root: RootDirectory | None, capacity: int, progress: Progress
    ) -> None:
        provider, format = self._usable(definition)
        volume_sizes.check_shrink(definition, provider, format, active=root is not None)
        progress.begin("shrinking")
        if root is None:
            with provider.open(definition) as device:
                volume_lock.lock(definition, device, progress)
                self._check_pools_own(definition, format, device)
            volume_sizes.shrink_unmounted(definition, provider, format, capacity, progress)
            return
        self.verify(definition, root)
        assert isinstance(root, HostRoot)
        volume_sizes.shrink_mounted(definition, provider, format, root, capacity)


def _open_target(definition: PoolDefinition, place: str) -> int:
    try:
        return os.open(place, _TARGET)
    except FileNotFoundError:
        raise NotFoundError(f"pool {definition.name}: {place} does not exist; build the pool first") from None
    except NotADirectoryError:
        raise places.not_a_directory(definition, place) from None
