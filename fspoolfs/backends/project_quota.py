"""Items as projects of ext4 and xfs: counted by the kernel, limited by it, otherwise plain directories.

Every item is a project of its own: its directory carries an id that all in it inherits. Which id is
the item's own is noted in an attribute that only root can see or set, because the owner of a
directory may change the id itself. Snapshots are copies outside of every project.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import ClassVar, NamedTuple, Protocol

from fspoolfs.backends import project_ids
from fspoolfs.backends.generic import GenericFileSystem
from fspoolfs.backends.root import HostDirectories, RootDirectory
from fspoolfs.errors import FspoolError, UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import quota

#: include/uapi/linux/magic.h
_EXT4 = 0xEF53
_XFS = 0x58465342

#: The inode and the project of an item's directory: a copy of it has another inode, and so no mark.
_MARK = "trusted.fspoolfs.project"

#: The mode of a directory before it has its project, and the bits that let others put something in.
_CLOSED = 0o700
_WRITABLE_BY_OTHERS = 0o022

#: What opening an item's directory answers when there is none, or none that may be followed.
_NO_DIRECTORY = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV))

#: Nanoseconds after a change of an inode in which another one may get the same time.
_CLOCK_STEP = 1_000_000_000

#: A remount with the option is accepted, and changes nothing, on both.
_HOW_TO_ENFORCE = {
    _EXT4: "'quotaon -P' on its mount point",
    _XFS: "\"xfs_quota -x -c 'enable -p'\" on its mount point",
}


_NO_PROJECT = "it held files before it had a project id, and giving one to each would need a walk"


class _Root(RootDirectory, HostDirectories, Protocol):
    """A root on a real file system."""


class _Known(NamedTuple):
    """What was read of a directory: true as long as its inode number and change time are these."""

    inode: int
    ctime_ns: int
    project: int | None


class ProjectQuotaFileSystem(GenericFileSystem):
    """Adds limits and `Usage` to the generic file system."""

    name: ClassVar[str] = "project-quota"

    def __init__(self, root: _Root) -> None:
        super().__init__(root)
        self._host = root
        self._magic = root.filesystem_magic()
        self._known: dict[str, _Known] = {}
        with self._open("") as fd:
            self._device = os.fstat(fd).st_dev
            self._ids = project_ids.of_filesystem(fd)

    def features(self) -> Sequence[Feature]:
        """As the kernel has it now: an administrator may turn enforcement on and off at any time."""
        refused = self._not_enforced()
        reasons = dict.fromkeys(("quota", "files", "resize"), refused) | {"usage": ""}
        exempt = "root with CAP_SYS_RESOURCE is not limited" if self._magic == _EXT4 and not refused else ""
        found = []
        for feature in super().features():
            note = feature.note
            if feature.name in ("quota", "files"):
                note = exempt
            elif feature.name == "snapshot":
                note = f"{note}, outside of its limits"
            found.append(replace(feature, reason=reasons.get(feature.name, feature.reason), note=note))
        return found

    def check(self, definition: ItemDefinition) -> None:
        """Refuse limits that are not enforced, or not for the directory that is there already."""
        if _has_limits(definition):
            refused = self._not_enforced()
            if refused:
                raise UnsupportedError(f"item {definition.name}: {refused}; or leave the limits out")
            self._check_directory(definition)

    def _check_directory(self, definition: ItemDefinition) -> None:
        """Refuse before anything is journalled what `update` would have to refuse of this directory."""
        try:
            with self._open(definition.location) as fd:
                if self._marked(fd) is None and not _is_empty(fd):
                    raise _no_project(definition)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        """Copy into a new project. What is copied counts, and what does not fit fails the copy."""
        super().clone(source, target, definition, progress)
        with self._open(target) as fd:
            if self._is_ours(fd):
                # The copy got all attributes of the source, its mark among them.
                self._mark(fd, quota.project(fd).id)

    def remove(self, path: str, progress: Progress) -> None:
        """Remove the tree and then the limits of its project, whose id is free with that."""
        with self._retiring(path):
            super().remove(path, progress)

    def usage(self, path: str) -> UsageInfo:
        """Raises `UnsupportedError` for a directory without a project of its own."""
        with self._open(path) as fd:
            number = self._project(fd)
            if number is None:
                raise UnsupportedError(f"{self._root.location(path)} is not counted: {self._why_none(fd)}")
            return _usage(quota.counters(fd, number))

    def usages(self, paths: Sequence[str]) -> Mapping[str, UsageInfo]:
        known = self._look_up(paths)
        self._known = known
        found = {}
        with self._open("") as fd:
            for path, entry in known.items():
                if entry.project is not None:
                    found[path] = _usage(quota.counters(fd, entry.project))
        return found

    def _look_up(self, paths: Sequence[str]) -> dict[str, _Known]:
        """Whose project each path is, read anew where the directory may be another or has changed."""
        found = {}
        for path in paths:
            try:
                info = self._root.stat(path)
                entry = self._known.get(path)
                if entry is None or (entry.inode, entry.ctime_ns) != (info.inode, info.ctime_ns):
                    entry = self._read(path)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY:
                    raise
                continue
            found[path] = entry
        return found

    def _read(self, path: str) -> _Known:
        with self._open(path) as fd:
            # The time first: what changes after this is seen by the next look.
            info = os.fstat(fd)
            number = self._project(fd)
        settled = time.time_ns() - info.st_ctime_ns > _CLOCK_STEP
        return _Known(info.st_ino, info.st_ctime_ns if settled else -1, number)

    def _make_directory(self, path: str, *, mode: int) -> None:
        """The directory has its project before anybody can put something in."""
        closed = mode & _WRITABLE_BY_OTHERS != 0
        super()._make_directory(path, mode=_CLOSED if closed else mode)
        try:
            with self._open(path) as fd:
                if self._is_ours(fd):
                    self._mark(fd, self._ids.give(fd))
                if closed:
                    os.fchmod(fd, mode)
        except (OSError, FspoolError):
            with suppress(OSError):  # the first error is the one to tell
                self._root.remove_directory(path)
            raise

    def _enforce(self, path: str, definition: ItemDefinition) -> None:
        with self._open(path) as fd:
            number = self._project(fd)
            if number is None:
                number = self._take_over(fd)
            if number is not None:
                # A limit of 0 is none to the kernel, and who asks for 0 asks for nothing more.
                space = 0 if definition.capacity is None else max(1, definition.capacity)
                inodes = 0 if definition.files is None else max(1, definition.files)
                quota.set_limits(fd, number, space=space, inodes=inodes)
            elif _has_limits(definition):
                raise _no_project(definition)

    def _take_over(self, fd: int) -> int | None:
        """Give a directory a project that has none: `None` where that would need a walk.

        An empty one was taken over, or its creation was interrupted. One whose owner has changed the
        id gets another one, for its old id may be another item's by now: what he took out of the count
        stays out, and what comes from now on is in.
        """
        if self._marked(fd) is not None:
            number = self._ids.give(fd)
            self._mark(fd, number)
            return number
        if not self._is_ours(fd) or not _is_empty(fd):
            return None
        before = quota.project(fd)
        number = self._ids.give(fd)
        if not _is_empty(fd):
            # Its owner was faster: what came first would never be counted.
            quota.set_project(fd, before.id, inherits=before.inherits)
            return None
        self._mark(fd, number)
        return number

    def _project(self, fd: int) -> int | None:
        """The id of the directory's own project, if it has one and its owner has not changed it."""
        number = self._marked(fd)
        return number if number is not None and quota.project(fd) == (number, True) else None

    def _marked(self, fd: int) -> int | None:
        try:
            inode, _, number = os.getxattr(fd, _MARK).decode("ascii").partition(" ")
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
            return None
        is_its_own = int(inode) == os.fstat(fd).st_ino and self._is_ours(fd)
        return int(number) if is_its_own else None

    def _is_ours(self, fd: int) -> bool:
        """Whether a directory is on the root's own file system, and not on one mounted below it."""
        return os.fstat(fd).st_dev == self._device

    def _mark(self, fd: int, number: int) -> None:
        os.setxattr(fd, _MARK, f"{os.fstat(fd).st_ino} {number}".encode("ascii"))

    def _why_none(self, fd: int) -> str:
        if self._marked(fd) is None:
            return _NO_PROJECT
        return "its owner has changed its project id; set its capacity again, and it gets a new one"

    def _not_enforced(self) -> str:
        """Why limits are not kept here; empty where they are."""
        with self._open("") as fd:
            if quota.state(fd).enforced:
                return ""
        return (
            "project quota is counted but not enforced on this file system; run "
            f"{_HOW_TO_ENFORCE[self._magic]}, and mount it with the option prjquota from the next time on "
            "(a remount changes nothing)"
        )

    def _retiring(self, path: str) -> AbstractContextManager[None]:
        """What surrounds the removal of an item's directory."""
        try:
            with self._open(path) as fd:
                number = self._project(fd)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY:
                raise
            number = None
        return nullcontext() if number is None else self._retire(number)

    @contextmanager
    def _retire(self, number: int) -> Iterator[None]:
        with self._open("") as fd, self._ids.retiring(fd, number):
            yield

    @contextmanager
    def _open(self, path: str) -> Iterator[int]:
        fd = self._host.open_directory(path)
        try:
            yield fd
        finally:
            os.close(fd)


def _has_limits(definition: ItemDefinition) -> bool:
    return definition.capacity is not None or definition.files is not None


def _is_empty(fd: int) -> bool:
    with os.scandir(fd) as entries:
        return next(entries, None) is None


def _no_project(definition: ItemDefinition) -> UnsupportedError:
    return UnsupportedError(
        f"item {definition.name}: its directory cannot be limited, because {_NO_PROJECT}; clone the item, "
        "and the clone can be limited"
    )


def _usage(found: quota.Counters) -> UsageInfo:
    return UsageInfo(allocation=found.space, inodes=found.inodes)


def probe(root: RootDirectory) -> ProjectQuotaFileSystem | None:
    """For root, on an ext4 or xfs that counts what projects use.

    A root that hands down a project itself is not for this: nothing with another id can be moved in it.
    """
    if not isinstance(root, HostDirectories) or os.geteuid() != 0:
        return None
    if root.filesystem_magic() not in (_EXT4, _XFS):
        return None
    fd = root.open_directory("")
    try:
        if not quota.state(fd).counted or quota.project(fd).inherits:
            return None
        # Refused to the root of a user namespace.
        quota.next_counters(fd, project_ids.FIRST)
    except PermissionError:
        return None
    finally:
        os.close(fd)
    return ProjectQuotaFileSystem(root)
