"""Items as subvolumes of btrfs: enforced capacities, counted usage, snapshots and clones at once.

What a subvolume cannot be asked for, directories that are none (taken over, say) do the generic
way; a capacity for one of them is refused. Quotas are used as they are found, and never switched
on or off. Needs root: every other user gets the generic file system. docs/btrfs.md tells people
what counts where.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import ClassVar
from uuid import uuid4

from fspoolfs.backends import btrfs_features, layout
from fspoolfs.backends import btrfs_quotas as quotas
from fspoolfs.backends import btrfs_subvolumes as subvolumes
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.root import HostDirectories, RootDirectory
from fspoolfs.errors import UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import btrfs, qgroups, syscalls, umask
from fspoolfs.system.qgroups import Mode

#: The mode of a copy that nobody else is to enter.
_CLOSED = 0o700
#: Up to how many items are counted one by one.
_FEW = 16

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BtrfsFileSystem(GenericFileSystem):
    """An item is a subvolume, a snapshot a read-only one."""

    name: ClassVar[str] = "btrfs"
    instant_snapshots: ClassVar[bool] = True

    def __init__(self, root: RootDirectory, directories: HostDirectories) -> None:
        super().__init__(root)
        self._directories = directories
        self._undertaker = quotas.Undertaker()

    # What it can do.

    def features(self) -> Sequence[Feature]:
        with self._opened("") as fd:
            status = qgroups.status(fd)
        return btrfs_features.features(status, self._root.path, self._no_reflink)

    def check(self, definition: ItemDefinition) -> None:
        if definition.capacity is not None:
            with self._opened("") as fd:
                off = qgroups.status(fd).mode is Mode.OFF
            if off:
                raise UnsupportedError(
                    f"item {definition.name}: no capacity can be enforced here, since {self._why_off()}; "
                    "leave <capacity> out, or do that first"
                )
        if definition.files is not None:
            raise UnsupportedError(
                f"item {definition.name}: btrfs does not limit the number of files of a subvolume; leave "
                "<files> out, or put the item into a pool whose features say that it limits files"
            )

    def _why_off(self) -> str:
        return btrfs_features.why_off(self._root.path)

    # Items.

    def _make_directory(self, path: str, *, mode: int) -> None:
        """A subvolume with exactly `mode`; until it has that, nobody else can enter."""
        with self._parent(path) as (parent, name):
            with umask.closed():
                btrfs.create_subvolume(parent, name)
            with _entry(parent, name) as fd:
                try:
                    os.fchmod(fd, mode)
                except OSError:
                    with suppress(OSError):  # the first error is the one to tell
                        btrfs.destroy(parent, btrfs.subvolume_of(fd))
                    raise

    def _enforce(self, path: str, definition: ItemDefinition) -> None:
        with self._opened("") as root, self._subvolume(path) as (_, subvolume):
            if subvolume is None:
                if definition.capacity is not None:
                    raise UnsupportedError(
                        f"item {definition.name}: its directory {self._root.location(path)} is no subvolume, "
                        "and btrfs limits nothing else; leave <capacity> out, or use a clone of the item"
                    )
            elif qgroups.status(root).mode is not Mode.OFF:
                quotas.enforce(root, subvolume, definition.capacity)
            elif definition.capacity is not None:
                raise UnsupportedError(
                    f"item {definition.name}: its capacity cannot be enforced, since {self._why_off()}"
                )

    def update(self, path: str, old: ItemDefinition, new: ItemDefinition) -> None:
        try:
            super().update(path, old, new)
        except OSError as error:
            if error.errno != errno.EDQUOT:
                raise
            # Even chmod(2) needs space in an item that is full: it gets some for a moment.
            self._lift(path)
            try:
                self._apply(path, new.permissions)
            finally:
                self._enforce(path, new)

    def move(self, source: str, target: str) -> None:
        try:
            super().move(source, target)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            self._move_read_only(source, target)

    def _move_read_only(self, source: str, target: str) -> None:
        """What is read-only cannot enter another directory: it is opened up for a moment.

        A crash leaves it writable for those who reach it, who are none where snapshots lie.
        """
        with self._opened(source) as fd:
            if not (btrfs.is_subvolume(fd) and btrfs.is_read_only(fd)):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), source)
            btrfs.set_read_only(fd, False)
            try:
                super().move(source, target)
            finally:
                btrfs.set_read_only(fd, True)

    def remove(self, path: str, progress: Progress) -> None:
        try:
            destroyed = self._destroy(path, progress)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            destroyed = False
        if not destroyed:
            super().remove(path, progress)

    def _destroy(self, path: str, progress: Progress) -> bool:
        """Destroy the subvolume at `path`, or those in the directory there; whether that was all."""
        with self._opened(path) as fd:
            if self._is_elsewhere(fd):
                return False
            progress.begin("purging", unit="subvolumes")
            is_one = btrfs.is_subvolume(fd)
            found = [btrfs.subvolume_of(fd)] if is_one else subvolumes.in_directory(fd)
        with self._opened("") as root:
            gone: list[int] = []
            try:
                for subvolume in found:
                    for one in subvolumes.destroy(root, subvolume, progress, quotas.lift):
                        gone.append(one)
            finally:
                with suppress(OSError):  # what is left of groups is found again when the pool starts
                    self._undertaker.bury(root, gone)
        return is_one

    def identify(self, path: str) -> str:
        with self._opened(path) as fd:
            subvolume = btrfs.subvolume_of(fd)
            if btrfs.is_subvolume(fd):
                return f"subvolume {subvolume}"
            return f"inode {os.fstat(fd).st_ino} of subvolume {subvolume}"

    # Snapshots and clones.

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        progress.advance(0)
        with self._subvolume(path) as (fd, subvolume):
            if subvolume is not None:
                self._snapshot(fd, target, read_only=True)
                return
        self._snapshot_of_copy(path, target, progress)

    def _snapshot_of_copy(self, path: str, target: str, progress: Progress) -> None:
        """Of a plain directory: the copy grows where a start clears up, and enters `target` whole."""
        staging = layout.staging(uuid4())
        self._with_parents(staging, lambda: self._make_directory(staging, mode=_CLOSED), needs=path)
        try:
            self._root.copy_tree(path, staging, progress, existing=True)
            with self._opened(staging) as fd:
                self._snapshot(fd, target, read_only=True)
        finally:
            self.remove(staging, Progress())

    def freeze(self, path: str) -> None:
        with self._subvolume(path) as (fd, subvolume):
            if subvolume is not None and not btrfs.is_read_only(fd):
                # Nothing limits a snapshot, and in a full item not even this could be changed.
                self._lift(path)
                btrfs.set_read_only(fd, True)

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        progress.advance(0)
        with self._subvolume(source) as (fd, subvolume):
            if subvolume is not None:
                self._with_parents(target, lambda: self._snapshot(fd, target, read_only=False), needs=source)
                # In this order: a clone may be full from the first moment on.
                self._apply(target, definition.permissions)
                self._enforce(target, definition)
                return
        super().clone(source, target, definition, progress)
        # Who is told that snapshots are instant takes all of this for durable, as a snapshot would be.
        self._root.sync()

    def _snapshot(self, fd: int, target: str, *, read_only: bool) -> None:
        with self._parent(target) as (parent, name):
            btrfs.snapshot(fd, parent, name, read_only=read_only)
            # The kernel gives the group of a snapshot the limit of its original's.
            with _entry(parent, name) as made:
                quotas.lift(parent, btrfs.subvolume_of(made))

    def _lift(self, path: str) -> None:
        with self._opened("") as root, self._subvolume(path) as (_, subvolume):
            if subvolume is not None:
                quotas.lift(root, subvolume)

    # Usage.

    def usage(self, path: str) -> UsageInfo:
        with self._opened("") as root, self._subvolume(path) as (_, subvolume):
            if subvolume is None:
                raise UnsupportedError(
                    f"{self._root.location(path)} is no subvolume, and btrfs counts nothing else; the verb "
                    "'measure' does"
                )
            if qgroups.status(root).mode is Mode.OFF:
                raise UnsupportedError(
                    f"{self._root.location(path)} is not counted, since {self._why_off()}; the "
                    "verb 'measure' counts without"
                )
            return UsageInfo(allocation=quotas.usage(root, subvolume), inodes=None)

    def usages(self, paths: Sequence[str]) -> Mapping[str, UsageInfo]:
        with self._opened("") as fd:
            if qgroups.status(fd).mode is Mode.OFF:
                return {}
            found = self._few_usages(fd, paths) if len(paths) <= _FEW else self._many_usages(fd, paths)
        return {path: UsageInfo(allocation=size, inodes=None) for path, size in found.items()}

    def _few_usages(self, root: int, paths: Sequence[str]) -> dict[str, int]:
        """One after the other: a pass goes through all that the file system holds."""
        found = {}
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError), self._subvolume(path) as (_, subvolume):
                if subvolume is not None:
                    found[path] = quotas.usage(root, subvolume)
        return found

    def _many_usages(self, fd: int, paths: Sequence[str]) -> dict[str, int]:
        """The file system's own list of subvolumes says which lies where, so that nothing is opened
        but the directories that items lie in, and nothing can be remembered wrongly.
        """
        places: dict[tuple[int, int, bytes], int] = {}
        inside: dict[int, list[int]] = {}
        for reference in btrfs.references(fd):
            places[reference.parent, reference.directory, reference.name] = reference.child
            inside.setdefault(reference.parent, []).append(reference.child)
        return quotas.usages(fd, dict(self._located(paths, places)), inside)

    def _located(
        self, paths: Sequence[str], places: Mapping[tuple[int, int, bytes], int]
    ) -> Iterator[tuple[str, int]]:
        """Which of `paths` is which subvolume."""
        directories: dict[str, tuple[int, int] | None] = {}
        for path in paths:
            parent, _, name = path.rpartition("/")
            if parent not in directories:
                directories[parent] = self._directory(parent)
            where = directories[parent]
            found = places.get((*where, os.fsencode(name))) if where else None
            if found is not None:
                yield path, found

    def _directory(self, path: str) -> tuple[int, int] | None:
        """The subvolume and the inode number of a directory, if it is there."""
        try:
            with self._opened(path) as fd:
                return btrfs.subvolume_of(fd), os.fstat(fd).st_ino
        except (FileNotFoundError, NotADirectoryError):
            return None

    # Descriptors.

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = self._directories.open_directory(path)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _subvolume(self, path: str) -> Iterator[tuple[int, int | None]]:
        """A directory, and its id where it is a subvolume of this file system."""
        with self._opened(path) as fd:
            ours = btrfs.is_subvolume(fd) and not self._is_elsewhere(fd)
            yield fd, btrfs.subvolume_of(fd) if ours else None

    def _is_elsewhere(self, fd: int) -> bool:
        """Whether something is mounted there: its ids would be those of another file system."""
        return syscalls.mount_id(fd) != self._mount

    @cached_property
    def _mount(self) -> int:
        with self._opened("") as fd:
            return syscalls.mount_id(fd)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that `path` is an entry of, and its name there."""
        parent, _, name = path.rpartition("/")
        with self._opened(parent) as fd:
            yield fd, name

    def tidy(self) -> None:
        """Finish what an interrupted removal left of groups; nothing depends on it."""
        with suppress(OSError), self._opened("") as fd:
            self._undertaker.sweep_all(fd)


@contextmanager
def _entry(dir_fd: int, name: str) -> Iterator[int]:
    fd = os.open(name, _DIRECTORY, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def probe(root: RootDirectory) -> BtrfsFileSystem | None:
    """Takes roots on btrfs where this process may do all that is needed, and the kernel can (5.7)."""
    if not isinstance(root, HostDirectories) or root.filesystem_magic() != btrfs.MAGIC:
        return None
    fd = root.open_directory("")
    try:
        qgroups.status(fd)
        btrfs.destroy(fd, 0)
    except OSError as error:
        # What can destroy subvolumes by id says that 0 is none.
        if error.errno != errno.EINVAL:
            return None
    finally:
        os.close(fd)
    found = BtrfsFileSystem(root, root)
    found.tidy()
    return found
