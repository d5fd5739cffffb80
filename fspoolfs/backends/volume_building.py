"""Formatting a pool's volume, and erasing it again: the only module that destroys what a device holds.

What is formatted is what probes empty, unless overwriting was asked for. While mkfs runs, a marker
STORAGE/volumes/.formatting/UUID stands: what carries the pool's UUID then is half of a file system
and may be made anew. What was there before is erased first, so that half of it is never taken for
something else. Without the marker, what carries the pool's UUID is the pool, and is never formatted
except by overwriting.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from fspoolfs.backends import place as places
from fspoolfs.backends import volume_lock, volume_mounts
from fspoolfs.backends.formats import LOST_AND_FOUND, Format
from fspoolfs.backends.source import BuildMode
from fspoolfs.backends.volumes.provider import Device, VolumeProvider
from fspoolfs.errors import ExistsError, FspoolError, StorageError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import atomic, probe, superblocks
from fspoolfs.system.paths import HostRoot

#: Less than this many bytes left on the host's disk explain why mkfs has failed.
_FULL = 1 << 20


class Maker(Protocol):
    """How one kind of file system gets onto a device, and is told from others there."""

    def is_pools(self, definition: PoolDefinition, device: Device) -> bool:
        """Whether the file system on `device` is the pool's."""

    def make(self, definition: PoolDefinition, device: Device, progress: Progress, *, fresh: bool) -> None:
        """Put one onto `device`, which is empty, and where it is `fresh` reads as zeros."""

    def refuse_leftovers(self, definition: PoolDefinition, device: Device) -> None:
        """Raise `NotEmptyError` when the pool's holds anything but fspoolfs' own files."""


class Builder:
    """Builds and erases volumes; `storage` is where markers are kept."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._markers = storage / "volumes" / ".formatting"

    def is_interrupted(self, definition: PoolDefinition) -> bool:
        """Whether formatting the pool's volume was begun and never came to its end."""
        return self._marker(definition).exists()

    def _marker(self, definition: PoolDefinition) -> Path:
        return self._markers / str(definition.uuid)

    def _mark(self, definition: PoolDefinition) -> None:
        self._markers.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.mark(str(self._marker(definition)))

    def _unmark(self, definition: PoolDefinition) -> None:
        with suppress(FileNotFoundError):
            atomic.remove_file(str(self._marker(definition)))

    # -- build ------------------------------------------------------------------------------------

    def build(
        self,
        definition: PoolDefinition,
        provider: VolumeProvider,
        maker: Maker,
        mode: BuildMode,
        progress: Progress,
    ) -> None:
        """Make the volume where it is missing, and a file system on it unless the pool's is there."""
        made = provider.create(definition)
        try:
            with provider.open(definition) as device:
                volume_lock.lock(definition, device, progress)
                if mode is BuildMode.NO_OVERWRITE and self._is_built(definition, maker, device):
                    return
                volume_mounts.refuse_use(definition, device)
                if definition.capacity is not None:
                    provider.grow(definition, definition.capacity)
                self._make_room(definition, device, mode)
                progress.begin("formatting")
                self._mark(definition)
                maker.make(definition, device, progress, fresh=made and provider.zeroed)
                os.fsync(device.fd)
                self._unmark(definition)
        except (OSError, FspoolError) as error:
            explained = self._explained(definition, error)
            if made:  # in this very call, so that nothing can be on it
                provider.remove(definition)
                self._unmark(definition)
            raise explained from error

    def _is_built(self, definition: PoolDefinition, maker: Maker, device: Device) -> bool:
        return maker.is_pools(definition, device) and not self.is_interrupted(definition)

    def _make_room(self, definition: PoolDefinition, device: Device, mode: BuildMode) -> None:
        """Leave the device empty, or raise `ExistsError` with what it holds."""
        found = probe.content(device.path)
        if found is None:
            return
        half_made = self.is_interrupted(definition) and found.known_uuid == definition.uuid
        if mode is not BuildMode.OVERWRITE and not half_made:
            raise ExistsError(
                f"pool {definition.name}: {device.origin} holds {found}; `build overwrite` would erase it"
            )
        probe.erase(device.path, inherited=[device.fd])

    def _explained(self, definition: PoolDefinition, error: OSError | FspoolError) -> OSError | FspoolError:
        """mkfs on an image says that the device has failed where the disk below has no room."""
        if isinstance(error, StorageError) and error.errno == errno.EIO:
            numbers = os.statvfs(self._storage)
            if numbers.f_bavail * numbers.f_frsize < _FULL or os.strerror(errno.ENOSPC) in str(error):
                return StorageError(
                    f"pool {definition.name}: the disk that holds {self._storage} has no room for the volume "
                    f"({error}); make room there and build the pool again",
                    errno=errno.ENOSPC,
                )
        return error

    # -- delete -----------------------------------------------------------------------------------

    def erase(self, definition: PoolDefinition, maker: Maker, device: Device) -> None:
        """Leave a device empty that holds the pool and nothing of anybody's.

        Raises `NotEmptyError` for items and others' files, `ExistsError` for what is not the pool's.
        """
        volume_mounts.refuse_use(definition, device)
        found = probe.content(device.path)
        if found is not None:
            if found.known_uuid != definition.uuid:
                raise ExistsError(
                    f"pool {definition.name}: {device.origin} holds {found}, which is not the pool's; "
                    "undefine the pool, which keeps everything"
                )
            if self._is_built(definition, maker, device):
                maker.refuse_leftovers(definition, device)
            probe.erase(device.path, inherited=[device.fd])
            os.fsync(device.fd)
        self._unmark(definition)

    def forget(self, definition: PoolDefinition) -> None:
        """The volume is gone: what was begun on it is of no concern any more."""
        self._unmark(definition)


class FormatMaker:
    """`Maker` for the formats that are mounted from their device."""

    def __init__(self, format: Format) -> None:
        self._format = format

    def is_pools(self, definition: PoolDefinition, device: Device) -> bool:
        found = superblocks.read(device.fd)
        return found is not None and (found.type, found.uuid) == (self._format.name, definition.uuid)

    def make(self, definition: PoolDefinition, device: Device, progress: Progress, *, fresh: bool) -> None:
        """By the best of the format's variants that the kernel mounts."""
        assert definition.uuid is not None
        variants = self._format.variants
        for number, variant in enumerate(variants, start=1):
            self._format.run_make(device, definition.name, definition.uuid, variant, progress, fresh=fresh)
            try:
                self._finish(definition, device)
                break
            except StorageError:
                if number == len(variants):
                    raise

    def _finish(self, definition: PoolDefinition, device: Device) -> None:
        """Mount a new file system and tell it what it can only be told then. Raises `StorageError`."""
        with self._opened(definition, device) as root:
            fd = root.open_directory("")
            try:
                self._format.finish(fd)
                self._format.tidy(root)
            finally:
                os.close(fd)
            root.sync()

    def refuse_leftovers(self, definition: PoolDefinition, device: Device) -> None:
        with self._opened(definition, device) as root:
            empty = ""
            with suppress(FileNotFoundError):
                # e2fsck makes one when it needs it.
                empty = "" if root.names(LOST_AND_FOUND) else LOST_AND_FOUND
            places.refuse_leftovers(definition, root, besides=empty)

    @contextmanager
    def _opened(self, definition: PoolDefinition, device: Device) -> Iterator[HostRoot]:
        place = places.place_of(definition)
        mounted = volume_mounts.detached(definition, self._format, device, place)
        with mounted as found, closing(found.root) as root:
            yield root
