"""What the sources of volume pools share: a provider for the volume, and a mount at the target."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from fspoolfs.backends import place as places
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.volume_building import Builder
from fspoolfs.backends.volumes.provider import VolumeProvider
from fspoolfs.errors import BusyError, FspoolError, InvalidError, NotEmptyError
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.model.infos import Backing, MountUse
from fspoolfs.system import command, holders, mounting, mounts, probe
from fspoolfs.system.paths import HostRoot


class ProvidedSource(ABC):
    """The common part of a `Source` on volumes; a definition gets the first of `providers` by default."""

    type: ClassVar[PoolType] = PoolType.VOLUME

    def __init__(self, storage: Path, providers: Sequence[VolumeProvider]) -> None:
        self._storage = storage
        self._providers = {provider.name: provider for provider in providers}
        self._default = providers[0].name
        self._builder = Builder(storage)

    def unusable(self) -> str:
        if os.geteuid() != 0:
            return "only root mounts volumes"
        for program in ("blkid", "setpriv", "wipefs"):
            if command.find(program) is None:
                return f"{program} is not installed; install the package util-linux"
        return ""

    def _provider_name(self, definition: PoolDefinition) -> str:
        source = definition.source
        return "device" if source.device is not None else source.provider or self._default

    def _provider(self, definition: PoolDefinition) -> VolumeProvider:
        return self._providers[self._provider_name(definition)]

    def check(self, definition: PoolDefinition) -> None:
        place = places.usable_place(definition)
        storage = os.path.realpath(self._storage / "volumes")
        if mounts.is_beneath(place, storage) or mounts.is_beneath(storage, place):
            raise InvalidError(
                f"pool {definition.name}: {place} is where images of volumes are kept; name another target"
            )
        for option in (definition.source.options or "").split(","):
            if option.partition("=")[0] in mounting.FORBIDDEN:
                raise InvalidError(
                    f"pool {definition.name}: mount option {option!r} is not for pools, whose roots are "
                    "mounted nosuid and nodev; leave it out"
                )
        self._provider(definition).check(definition)

    def identity(self, definition: PoolDefinition) -> str:
        return self._provider(definition).identity(definition)

    def carried(self, definition: PoolDefinition) -> UUID | None:
        provider = self._provider(definition)
        try:
            if self.unusable() or provider.unusable() or provider.size(definition) is None:
                return None
            found = self._content(definition, provider)
        except (OSError, FspoolError):
            return None  # a start will say what is wrong with it
        return found.known_uuid if found is not None and self._is_called_so(definition, found) else None

    @abstractmethod
    def _is_called_so(self, definition: PoolDefinition, found: probe.Content) -> bool:
        """Whether what a volume holds is of the pool's format, and of a pool of this name."""

    def _content(self, definition: PoolDefinition, provider: VolumeProvider) -> probe.Content | None:
        """What the volume holds, attached for no longer than the look takes."""
        place = provider.place(definition)
        if os.path.exists(place):
            return probe.content(place)
        try:
            with provider.open(definition) as device:
                return probe.content(device.path)
        finally:
            provider.release(definition)

    def verify(self, definition: PoolDefinition, root: RootDirectory) -> None:
        if not isinstance(root, HostRoot):
            raise TypeError(f"{root!r} was not attached by this source")
        if not root.still_mounted():
            raise FspoolError(
                f"pool {definition.name}: its volume is no longer mounted at {root.path}; stop the pool and "
                "start it again",
                errno=errno.ESTALE,
            )

    def _refuse_target(self, definition: PoolDefinition, mounted: mounts.Mount | None) -> None:
        """Raise `FspoolError` where something is mounted at the target, or it holds files."""
        place = places.place_of(definition)
        if mounted is not None:
            raise BusyError(
                f"pool {definition.name}: {mounted.source} is mounted at its target {place}; unmount it, or "
                "give the pool another target"
            )
        if os.listdir(place):
            raise NotEmptyError(
                f"pool {definition.name}: its target {place} holds files, which the volume would hide; move "
                "them away, or give the pool another target"
            )

    def holders(self, definition: PoolDefinition) -> Sequence[MountUse]:
        return holders.holders(places.place_of(definition))

    def size(self, definition: PoolDefinition) -> int | None:
        return self._provider(definition).size(definition)

    def backing(self, definition: PoolDefinition) -> Backing | None:
        return self._provider(definition).backing(definition)
