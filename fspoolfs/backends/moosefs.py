"""Items on MooseFS: limits that its master keeps, what it counts, snapshots and clones as lazy copies.

A limit is of the lengths of an item's files: limits of sizes count whole chunks of 64 MiB while one is
written, and refuse every small item. A lazy copy is one step of the master's, whole or not there, and as
writable as its original: a snapshot is protected by the place where it lies. docs/moosefs.md tells people
what counts where.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar

from fspoolfs.backends.filesystem import FEATURES
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.root import HostDirectories, RootDirectory
from fspoolfs.errors import FspoolError, UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import moosefs, syscalls
from fspoolfs.system.moosefs import Limit, Master

_OURS = Limit.LENGTH | Limit.INODES
#: The most inodes that a limit can name.
_MOST = (1 << 32) - 1
_LATE = (
    "advisory: never exceeded, but a program hears of it late, at fsync or close or up to 64 MiB further "
    "on, and what it wrote beyond the limit is lost"
)
_NOTES = {
    "quota": _LATE,
    "usage": "lengths of files, holes and what clones share included",
    "snapshot": "at once, sharing blocks; what was written in the last second and neither synced nor closed "
    "may be missing",
    "clone": "at once, sharing blocks",
    "reflink": "clones and snapshots share chunks of 64 MiB until one of them is written to",
}


class MooseFileSystem(GenericFileSystem):
    """An item is a directory with limits of its own."""

    name: ClassVar[str] = "moosefs"
    instant_snapshots: ClassVar[bool] = True

    def __init__(self, root: RootDirectory, directories: HostDirectories, no_limits: str) -> None:
        """`no_limits` is why limits cannot be set through this mount; empty where they can."""
        super().__init__(root)
        self._directories = directories
        self._no_limits = no_limits

    # What it can do.

    def features(self) -> Sequence[Feature]:
        reasons = dict.fromkeys(("quota", "files", "resize"), self._no_limits)
        return tuple(
            Feature(name=name, reason=reasons[name])
            if reasons.get(name)
            else Feature(name=name, note=_NOTES.get(name, ""))
            for name in FEATURES
        )

    def check(self, definition: ItemDefinition) -> None:
        for wanted, element in ((definition.capacity, "capacity"), (definition.files, "files")):
            if wanted is not None and self._no_limits:
                raise UnsupportedError(
                    f"item {definition.name}: no {element} can be enforced here, since {self._no_limits}; "
                    f"leave <{element}> out, or do that first"
                )

    # Items.

    def _enforce(self, path: str, definition: ItemDefinition) -> None:
        """All limits in one connection; those that are not wanted are taken away."""
        length, files = definition.capacity, definition.files
        if self._no_limits:
            if length is not None or files is not None:
                raise UnsupportedError(
                    f"item {definition.name}: its limits cannot be enforced, since {self._no_limits}"
                )
            return
        unwanted = Limit(0)
        if length is None:
            unwanted |= Limit.LENGTH
        if files is None:
            unwanted |= Limit.INODES
        # The item's own directory counts elsewhere; here the master leaves it out.
        inodes = None if files is None else min(max(0, files - 1), _MOST)
        with self._directory(path) as fd, self._master() as master:
            inode = os.fstat(fd).st_ino
            if unwanted != _OURS:
                master.limit(inode, length=length, inodes=inodes)
            if unwanted:
                master.lift(inode, unwanted)

    # Snapshots and clones.

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        progress.advance(0)
        self._copy(path, target)

    def freeze(self, path: str) -> None:
        """Nothing limits a snapshot; it is protected by the place where it lies."""
        if not self._no_limits:
            with self._directory(path) as fd, self._master() as master:
                master.lift(os.fstat(fd).st_ino, _OURS)

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        progress.advance(0)
        self._with_parents(target, lambda: self._copy(source, target), needs=source)
        self._apply(target, definition.permissions)
        self._enforce(target, definition)

    def _copy(self, source: str, target: str) -> None:
        parent, _, name = target.rpartition("/")
        with self._directory(source) as origin, self._directory(parent) as above:
            # A lazy copy would be merged into a directory that is there.
            with suppress(FileNotFoundError):
                os.stat(name, dir_fd=above, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            # What this host has not handed to the program of the mount yet.
            self._root.sync()
            with self._master() as master:
                master.copy(os.fstat(origin).st_ino, os.fstat(above).st_ino, os.fsencode(name))

    # Usage.

    def usage(self, path: str) -> UsageInfo:
        with self._directory(path) as fd, self._master() as master:
            return _usage(master.quota(os.fstat(fd).st_ino))

    def usages(self, paths: Sequence[str]) -> Mapping[str, UsageInfo]:
        inodes: dict[str, int] = {}
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                inodes[path] = self._root.stat(path).inode
        with self._master() as master:
            found = master.quotas(list(inodes.values()))
        return {path: _usage(found[inode]) for path, inode in inodes.items() if inode in found}

    # Descriptors.

    @contextmanager
    def _directory(self, path: str) -> Iterator[int]:
        """A directory of this file system: the number of another one's would be that of something else."""
        fd = self._directories.open_directory(path)
        try:
            if os.fstat(fd).st_dev != self._device:
                raise UnsupportedError(
                    f"{self._root.location(path)} is another file system, mounted there; unmount it first"
                )
            yield fd
        finally:
            os.close(fd)

    @property
    def _device(self) -> int:
        fd = self._directories.open_directory("")
        try:
            return os.fstat(fd).st_dev
        finally:
            os.close(fd)

    @contextmanager
    def _master(self) -> Iterator[Master]:
        fd = self._directories.open_directory("")
        try:
            with moosefs.connected(fd) as master:
                yield master
        finally:
            os.close(fd)


def _usage(quota: moosefs.Quota) -> UsageInfo:
    """With the item's own directory, as a walk counts it."""
    return UsageInfo(allocation=quota.length, inodes=quota.inodes + 1)


def probe(root: RootDirectory) -> MooseFileSystem | None:
    """Takes roots on a mounted MooseFS when this process is root."""
    if os.geteuid() != 0 or not isinstance(root, HostDirectories):
        return None
    if root.filesystem_magic() != syscalls.FUSE_MAGIC:
        return None
    fd = root.open_directory("")
    try:
        if moosefs.where(fd) is None:
            return None
        with moosefs.connected(fd) as master:
            return MooseFileSystem(root, root, _why_no_limits(master, os.fstat(fd).st_ino))
    except FspoolError as error:
        raise type(error)(f"{root.path}: {error}", errno=error.errno) from error
    finally:
        os.close(fd)


def _why_no_limits(master: Master, inode: int) -> str:
    """Asks for what changes nothing: that a limit be lifted which the root does not have."""
    present = master.quota(inode).limits
    absent = next((one for one in Limit if one not in present), None)
    if absent is None:
        return ""
    try:
        master.lift(inode, absent)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return (
                "the MooseFS lets this host set no quotas: in the mfsexports.cfg of its master, the line for "
                "this host needs the options admin and maproot=0"
            )
        if error.errno == errno.EROFS:
            return "this MooseFS is mounted read-only"
        raise
    return ""
