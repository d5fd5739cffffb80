"""Items as plain directories of any POSIX file system: what works everywhere.

Owner and mode are the kernel's; clones are copies; what an item holds is counted by walking. What
needs the help of a particular file system is refused with the reason. The file systems that can do
more inherit from here and replace what they do better.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

from fspoolfs.backends.filesystem import FEATURES
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import UnsupportedError
from fspoolfs.model.definitions import ItemDefinition, Permissions
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress

#: An item's mode where the definition is silent, and that of the directories above it.
DEFAULT_MODE = 0o755
#: The mode of an item that has not got its owner yet.
_CLOSED = 0o700


@runtime_checkable
class Reflinker(Protocol):
    """Implemented by roots that can tell whether copies may share their blocks."""

    def supports_reflink(self) -> bool:
        """Whether FICLONE (ioctl_ficlonerange(2)) works among files of this root."""


class GenericFileSystem:
    """`FileSystem`, `Cloner`, `Measurer` and `Snapshotter` on any root.

    What inherits replaces `_make_directory` (how an item's empty directory comes into being),
    `_enforce` (its limits), and what it can do better.
    """

    name: ClassVar[str] = "generic"
    instant_snapshots: ClassVar[bool] = False

    def __init__(self, root: RootDirectory) -> None:
        self._root = root

    @property
    def root(self) -> RootDirectory:
        return self._root

    def features(self) -> Sequence[Feature]:
        reasons = {
            "quota": "a generic file system has no limit that is enforced for one directory",
            "files": "a generic file system does not limit the number of files of one directory",
            "usage": "a generic file system does not count what a directory holds; the verb 'measure' does",
            "resize": "without a quota there is no capacity to change",
            "reflink": self._no_reflink,
        }
        how = "copies the whole item" if self._no_reflink else "copies the item, sharing blocks"
        notes = {"snapshot": how, "clone": how}
        return tuple(
            Feature(name=name, reason=reasons.get(name, ""), note=notes.get(name, "")) for name in FEATURES
        )

    def check(self, definition: ItemDefinition) -> None:
        if definition.capacity is not None:
            raise UnsupportedError(
                f"item {definition.name}: on a generic file system no capacity can be enforced; leave "
                "<capacity> out, or put the item into a pool whose features say that it has a quota"
            )
        if definition.files is not None:
            raise UnsupportedError(
                f"item {definition.name}: on a generic file system no number of files can be enforced; leave "
                "<files> out, or put the item into a pool whose features say that it limits files"
            )

    def create(self, path: str, definition: ItemDefinition) -> None:
        """Make the item's empty directory; nobody else enters it before it has its owner.

        Raises `FileExistsError` when something is there. Whoever repeats a creation after a crash,
        and finds the directory, gives it the rest with `update`.
        """
        wanted = definition.permissions
        mode = DEFAULT_MODE if wanted.mode is None else wanted.mode
        # The usual item belongs to the daemon's user, and mkdir(2) alone does it.
        own = wanted.owner in (None, os.geteuid()) and wanted.group in (None, os.getegid())
        self._with_parents(path, lambda: self._make_directory(path, mode=mode if own else _CLOSED))
        self._limit_new(path, definition)
        if not own or not self._belongs(path, wanted):
            self._root.set_attributes(path, mode=mode, owner=wanted.owner, group=wanted.group)

    def update(self, path: str, old: ItemDefinition, new: ItemDefinition) -> None:
        """Set all that `new` says, also what `old` says too: the directory may have neither."""
        self._enforce(path, new)
        self._apply(path, new.permissions)

    def move(self, source: str, target: str) -> None:
        """Rename, and make missing directories above `target`; those above `source` stay."""
        self._with_parents(target, lambda: self._root.rename(source, target), needs=source)

    def remove(self, path: str, progress: Progress) -> None:
        try:
            self._root.remove_tree(path, progress)
        except FileNotFoundError:
            return

    def identify(self, path: str) -> str:
        return f"inode {self._root.stat(path).inode}"

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        """Copy; what is left of a copy that failed or was cancelled is removed by the caller."""
        self._with_parents(target, lambda: self._make_directory(target, mode=_CLOSED), needs=source)
        self._enforce(target, definition)
        progress.begin(progress.phase or "cloning")
        self._root.copy_tree(source, target, progress, existing=True)
        self._apply(target, definition.permissions)

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        """Copy; nothing limits a snapshot, and where it lies nobody but the daemon can write."""
        progress.begin("snapshotting")
        self._root.copy_tree(path, target, progress)

    def freeze(self, path: str) -> None:
        """A copy is protected by the place where it lies."""

    def measure(self, path: str, progress: Progress) -> UsageInfo:
        return self._root.measure(path, progress)

    @cached_property
    def _no_reflink(self) -> str:
        """Why clones do not share their blocks with the original; empty where they do."""
        if not isinstance(self._root, Reflinker):
            return "this kind of root does not tell whether files can share blocks"
        return "" if self._root.supports_reflink() else "files cannot share blocks here; a clone copies them"

    def _make_directory(self, path: str, *, mode: int) -> None:
        """Make the empty directory that becomes an item."""
        self._root.make_directory(path, mode=mode)

    def _enforce(self, path: str, definition: ItemDefinition) -> None:
        """Set the limits of `definition`, all of them, on an existing directory: here there are none."""

    def _limit_new(self, path: str, definition: ItemDefinition) -> None:
        """The same for a directory that was just made."""
        self._enforce(path, definition)

    def _apply(self, path: str, wanted: Permissions) -> None:
        if wanted != Permissions():
            self._root.set_attributes(path, mode=wanted.mode, owner=wanted.owner, group=wanted.group)

    def _belongs(self, path: str, wanted: Permissions) -> bool:
        """Whether a new directory got the owner and group that it was to get.

        A parent with the set-group-ID bit, the mount option grpid and servers that squash root
        give it others than the process has.
        """
        if wanted.owner is None and wanted.group is None:
            return True
        info = self._root.stat(path)
        return wanted.owner in (None, info.owner) and wanted.group in (None, info.group)

    def _with_parents(self, target: str, action: Callable[[], None], *, needs: str = "") -> None:
        """Do what makes `target` out of `needs`; only where it fails for want of directories, make them."""
        try:
            action()
        except FileNotFoundError:
            if "/" not in target:
                raise
            self._root.stat(needs)  # if it is this that is missing, nothing is to be made
            self._make_parents(target)
            action()

    def _make_parents(self, path: str) -> None:
        above = path.split("/")[:-1]
        for depth in range(1, len(above) + 1):
            with suppress(FileExistsError):
                self._root.make_directory("/".join(above[:depth]), mode=DEFAULT_MODE)


def probe(root: RootDirectory) -> GenericFileSystem:
    """Every root is at least this."""
    return GenericFileSystem(root)
