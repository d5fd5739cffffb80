"""Where items are found with mapped ids: a mount for each that asks for it, made when it is looked for.

The mounts lie in the state directory, in a directory for each pool, by the items' uuids. Whoever reads
the link `idmapped` has the mount made or brought up to date, so a daemon that was killed has nothing
to bring back. They are this daemon's own and count for no use of an item; what is bound from them does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from uuid import UUID

from fspoolfs.backends.root import HostDirectories
from fspoolfs.errors import FspoolError, InactiveError, UnsupportedError
from fspoolfs.model.definitions import IdMap, ItemDefinition
from fspoolfs.service.objects import Attached

log = logging.getLogger(__name__)


class IdMapper(Protocol):
    """Mounts directories with mapped ids; `fspoolfs.system.idmapping` is the real one."""

    def check(self, fd: int, idmap: IdMap) -> None:
        """Raise `UnsupportedError` where the directory behind `fd` cannot be shown so."""

    def show(self, fd: int, at: str, idmap: IdMap) -> None:
        """Mount the directory behind `fd` at `at`, made if missing."""

    def hide(self, at: str) -> None:
        """Take the mount away, used or not; that there is none is no error."""

    def hide_all(self, directory: str) -> None:
        """Take all away that is mounted in a directory."""


class Mappings:
    """The mapped directories of all items. Methods block."""

    def __init__(self, directory: Path, mapper: IdMapper | None) -> None:
        self._directory = directory
        self._mapper = mapper

    def place(self, pool: str, item: UUID) -> str:
        """Where the mount of an item is, or will be."""
        return str(self._directory / pool / str(item))

    def check(self, attached: Attached, what: str, idmap: IdMap) -> None:
        """Raise `UnsupportedError` where the items of a pool cannot be shown so."""
        root = attached.root
        if self._mapper is None or not isinstance(root, HostDirectories):
            raise UnsupportedError(
                f"{what}: <idmap> needs a daemon that runs as root, on storage of this host"
            )
        fd = root.open_directory("")
        try:
            self._mapper.check(fd, idmap)
        except UnsupportedError as error:
            raise UnsupportedError(f"{what}: <idmap> is refused: {error}") from error
        finally:
            os.close(fd)

    def show(self, pool: str, attached: Attached, definition: ItemDefinition) -> str:
        """Mount an item's directory with mapped ids, where that is not done; the place of the mount.

        Raises `InactiveError`, `UnsupportedError` or `OSError`.
        """
        root = attached.root
        if self._mapper is None or not isinstance(root, HostDirectories) or definition.idmap is None:
            raise InactiveError(f"item {definition.name} of pool {pool} has no mapped directory")
        assert definition.uuid is not None
        at = self.place(pool, definition.uuid)
        fd = root.open_directory(definition.location)
        try:
            self._mapper.show(fd, at, definition.idmap)
        finally:
            os.close(fd)
        return at

    def begin(self, pool: str, attached: Attached, definitions: Iterable[ItemDefinition]) -> None:
        """Show what was shown before the host was booted, since containers are started with such paths.

        What is left of other items goes. One that cannot be shown keeps no pool from starting.
        """
        wanted = {str(one.uuid): one for one in definitions if one.idmap is not None}
        directory = self._directory / pool
        try:
            for name in os.listdir(directory) if directory.exists() else ():
                if name not in wanted and self._mapper is not None:
                    self._mapper.hide(str(directory / name))
        except OSError as error:
            log.warning("pool %s: what is left in %s cannot be removed: %s", pool, directory, error)
        for one in wanted.values():
            try:
                self.show(pool, attached, one)
            except (OSError, FspoolError) as error:
                log.warning("pool %s: item %s cannot be shown with mapped ids: %s", pool, one.name, error)

    def hide(self, pool: str, item: UUID) -> None:
        """Show an item no more, until the link is read again."""
        if self._mapper is not None:
            self._mapper.hide(self.place(pool, item))

    def withdraw(self, pool: str) -> None:
        """Show nothing of a pool any more, which is stopped."""
        if self._mapper is not None:
            self._mapper.hide_all(str(self._directory / pool))
