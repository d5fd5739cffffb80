"""Network pools without a host: the directory is on this host already, and is bound to the target."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import ClassVar

from fspoolfs.backends import place as places
from fspoolfs.backends.network import exports
from fspoolfs.errors import InvalidError, NotFoundError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system import mounting, mounts
from fspoolfs.system.mounts import Mount

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Bound:
    """Keeps `fspoolfs.backends.network.engine.Engine`, for pools that name no host."""

    name: ClassVar[str] = "bind"
    fs_types: ClassVar[Collection[str]] = ()
    options: ClassVar[Collection[str]] = ()
    single_host: ClassVar[str] = ""
    #: All daemons that can bind it run under one kernel, which ends what a process has with it.
    fences: ClassVar[bool] = True
    patience: ClassVar[float] = 10.0
    told_by_server: ClassVar[str] = ""

    def unusable(self) -> str:
        return ""

    def check(self, definition: PoolDefinition) -> None:
        directory = self._directory(definition)
        places.usable(definition, directory)
        target = os.path.normpath(places.target_of(definition))
        if mounts.is_beneath(directory, target) or mounts.is_beneath(target, directory):
            raise InvalidError(
                f"pool {definition.name}: its target {target} and its directory {directory} lie in each "
                "other; "
                "name another target, or make it a pool of type 'dir'"
            )

    def identity(self, definition: PoolDefinition) -> str:
        # As pools of type dir have it: one of those on this directory is the same storage.
        return f"dir:{self._directory(definition)}"

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        directory = self._directory(definition)
        try:
            source = os.open(directory, _DIRECTORY)
        except FileNotFoundError:
            raise NotFoundError(
                f"pool {definition.name}: {directory} does not exist on this host, and no <host> is "
                "named; make it "
                "or mount what belongs there, and build the pool then"
            ) from None
        except NotADirectoryError:
            raise places.not_a_directory(definition, directory) from None
        try:
            tree = mounting.copy_detached(source)
        finally:
            os.close(source)
        try:
            target = os.open(place, _DIRECTORY)
            try:
                mounting.move(tree, target)
            finally:
                os.close(target)
        finally:
            os.close(tree)

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        table = mounts.recent()
        directory = self._directory(definition)
        around = mounts.containing(table, directory)
        if around is None or around.device != mount.device:
            return False
        inside = os.path.relpath(directory, around.target)
        return os.path.normpath(os.path.join(around.root, inside)) == os.path.normpath(mount.root)

    def answers(self, definition: PoolDefinition) -> bool:
        return os.path.isdir(self._directory(definition))

    def _directory(self, definition: PoolDefinition) -> str:
        return os.path.realpath(exports.directory(definition))
