"""The contract of a file system: what it means to be an item on an attached root.

A file system is found by looking at what is mounted at the root, for every source alike. It
declares what it can do by the protocols that it implements; `features` then takes away what this
very root does not allow, with the reason. To add one, write a module with a class that keeps
`FileSystem` (most of it inherited from `fspoolfs.backends.generic.GenericFileSystem`), give it a
`probe`, and list it in `fspoolfs.backends.registry`. The conformance suite runs over all of them.

Paths are relative to the root, as in `fspoolfs.backends.root`. The order of operations, durability
and undo are the service's work: a method does one step, may be repeated after a crash (a second
`create` of what exists by the same call is no error of the file system's but of the caller), and
reports failures as `OSError` or `FspoolError`. Methods block and run in worker threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress

#: The features that a file system answers for, in the order in which they are shown.
FEATURES = ("quota", "usage", "resize", "snapshot", "clone", "reflink")


class FileSystem(Protocol):
    """Items on one attached root."""

    #: The name that `features` shows, such as "generic" or "btrfs".
    name: ClassVar[str]

    @property
    def root(self) -> RootDirectory:
        """The root that this instance works on."""

    def features(self) -> Sequence[Feature]:
        """One `Feature` for each of `FEATURES`, probed on this root."""

    def check(self, definition: ItemDefinition) -> None:
        """Raise `UnsupportedError` for a limit that this root cannot enforce."""

    def create(self, path: str, definition: ItemDefinition) -> None:
        """Make the item's empty directory with its owner, mode and limits; parents are made too."""

    def update(self, path: str, old: ItemDefinition, new: ItemDefinition) -> None:
        """Give an existing item the owner, mode and limits of `new`."""

    def move(self, source: str, target: str) -> None:
        """Move an item's directory, as into the trash and back; never replaces."""

    def remove(self, path: str, progress: Progress) -> None:
        """Remove an item's directory and all that belongs to it; what is gone is no error."""


@runtime_checkable
class Cloner(Protocol):
    """Implemented where an item can be made from another one."""

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        """Make `target` hold what `source` holds, with the limits, owner and mode of `definition`."""


@runtime_checkable
class Quota(Protocol):
    """Implemented where the kernel enforces an item's capacity."""

    def set_capacity(self, path: str, capacity: int | None) -> None:
        """Enforce `capacity` bytes; `None` lifts the limit."""


@runtime_checkable
class Usage(Protocol):
    """Implemented where the storage counts what an item holds; never a walk."""

    def usage(self, path: str) -> UsageInfo: ...


@runtime_checkable
class Measurer(Protocol):
    """Implemented where what an item holds can be counted by walking it."""

    def measure(self, path: str, progress: Progress) -> UsageInfo: ...


@runtime_checkable
class Snapshotter(Protocol):
    """Implemented where an item can have snapshots."""

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        """Keep what `path` holds now, read-only, at `target`."""

    def restore(self, snapshot: str, path: str, progress: Progress) -> None:
        """Make the new directory `path` hold what `snapshot` holds, writable."""
