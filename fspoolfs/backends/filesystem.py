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

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress

#: The features that a file system answers for, in the order in which they are shown: a capacity
#: that is enforced, a limit of the number of files that is, what is used being counted, a capacity
#: that can be changed, snapshots, clones, clones and snapshots that share blocks.
FEATURES = ("quota", "files", "usage", "resize", "snapshot", "clone", "reflink")


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
        """Give an existing item the owner, mode and limits of `new`; all of them, changed or not.

        Raises `UnsupportedError` where a limit cannot be set for just this directory, such as one
        that was taken over.
        """

    def move(self, source: str, target: str) -> None:
        """Move the directory of an item or a snapshot, as into the trash and back; never replaces.

        Where snapshots are read-only, only this brings one into another directory: a rename by the
        root is refused with EROFS.
        """

    def remove(self, path: str, progress: Progress) -> None:
        """Remove the directory of an item or a snapshot and all that belongs to it.

        What is gone is no error; nor is a directory that holds several of them.
        """

    def identify(self, path: str) -> str:
        """What tells the directory at `path` from every other one that exists, wherever it is moved."""


@runtime_checkable
class Cloner(Protocol):
    """Implemented where an item can be made from another one, or from a snapshot."""

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        """Make the new directory `target` hold what `source` holds, writable.

        It gets the owner, mode and limits of `definition`. Where that fails, what there is of
        `target` is removed by the caller.
        """


@runtime_checkable
class Usage(Protocol):
    """Implemented where the storage counts what an item holds; never a walk."""

    def usage(self, path: str) -> UsageInfo:
        """What one item holds, as the kernel counts it now."""

    def usages(self, paths: Sequence[str]) -> Mapping[str, UsageInfo]:
        """What many items hold, in one pass over the kernel's counters.

        Directories that are not counted by themselves, or are gone, are left out.
        """


@runtime_checkable
class Measurer(Protocol):
    """Implemented where what an item holds can be counted by walking it."""

    def measure(self, path: str, progress: Progress) -> UsageInfo: ...


@runtime_checkable
class SnapshotPlaces(Protocol):
    """Implemented where a snapshot's directory only stands for what it holds, which lies elsewhere."""

    def place(self, path: str) -> str:
        """Where what the snapshot at `path` holds can be read, below the root; not for long."""


@runtime_checkable
class Snapshotter(Protocol):
    """Implemented where an item can have snapshots. A snapshot is a directory of its own.

    An item is restored from one by `Cloner.clone`.
    """

    #: Whether a snapshot costs no more than a moment, is whole or not there after a crash, and
    #: durable when `snapshot` returns. Others are copies, made in staging and then moved.
    instant_snapshots: ClassVar[bool]

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        """Keep what `path` holds now at the new directory `target`, which none of its limits concern."""

    def freeze(self, path: str) -> None:
        """Make an item's directory a snapshot as it is; repeating it changes nothing."""
