"""Directory pools: the root is a directory of the host that is there anyway.

Nothing is mounted, so there is nothing to unmount either, and nobody can be in the way of a detach.
The directory is never emptied: building keeps what it finds, deleting refuses it.
"""

from __future__ import annotations

import errno
from contextlib import closing, suppress
from typing import ClassVar

from fspoolfs.backends import layout, place
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.errors import FspoolError, NotFoundError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition, PoolSource, PoolType
from fspoolfs.progress import Progress
from fspoolfs.system.paths import HostRoot


def check_plain(definition: PoolDefinition) -> None:
    """Refuse what no directory pool can have, wherever its directory lies."""
    target = place.target_of(definition)
    if definition.capacity is not None:
        raise UnsupportedError(
            f"pool {definition.name}: a directory has no capacity of its own, the file system that holds "
            f"{target} has; leave <capacity> out, or use a pool of type 'volume'"
        )
    if definition.source != PoolSource():
        raise UnsupportedError(
            f"pool {definition.name}: a pool of type 'dir' has no source but its target {target}; leave "
            "<source> out"
        )


class DirectorySource:
    """`Source` for pools of type "dir"."""

    type: ClassVar[PoolType] = PoolType.DIR
    format: ClassVar[str] = ""

    def unusable(self) -> str:
        return ""

    def check(self, definition: PoolDefinition) -> None:
        check_plain(definition)
        place.usable_place(definition)

    def identity(self, definition: PoolDefinition) -> str:
        return f"dir:{place.place_of(definition)}"

    def build(self, definition: PoolDefinition, mode: BuildMode, progress: Progress) -> None:
        """Make the target and what is missing above it, mode 0755, durably.

        A directory that exists stays as it is, with all that it holds, also with `OVERWRITE`.
        """
        progress.begin("building")
        place.make(definition)

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        where = place.place_of(definition)
        try:
            return HostRoot.open(where)
        except FileNotFoundError:
            raise NotFoundError(
                f"pool {definition.name}: {where} does not exist; build the pool first"
            ) from None
        except NotADirectoryError:
            raise place.not_a_directory(definition, where) from None

    def verify(self, definition: PoolDefinition, root: RootDirectory) -> None:
        if not isinstance(root, HostRoot):
            raise TypeError(f"{root!r} was not attached by this source")
        if not root.still_there():
            raise FspoolError(
                f"pool {definition.name}: {root.path} is no longer the directory that was attached; stop the "
                "pool, put the directory back and start it again",
                errno=errno.ESTALE,
            )

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        """Nothing was mounted, so nothing is undone; descriptors belong to the root."""

    def delete(self, definition: PoolDefinition) -> None:
        """Remove the target if it holds nothing but fspoolfs' own files.

        A mount point, which build did not make, stays as an empty directory.
        """
        where = place.usable_place(definition)
        try:
            opened = HostRoot.open(where)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise place.not_a_directory(definition, where) from None
        with closing(opened) as root:
            place.refuse_leftovers(definition, root)
            with suppress(FileNotFoundError):
                root.remove_tree(layout.OWN, Progress())
            root.sync()
        place.remove_empty(definition)
