"""Snapshots of directories of CephFS, and the stubs that stand for them among fspoolfs' own files.

CephFS keeps a snapshot with the directory that it was taken of, in its hidden `.snap`, and does not let
that directory go before it. So what fspoolfs names, renames and removes is a *stub*: an empty directory
whose attribute tells the inode number of the one that was taken, and the snapshot's name there. Where
that directory lies now is written down in a record, which is only a hint: it is believed when the inode
number there is the right one, and else looked for. A directory whose content is removed while snapshots
of it are left stays, empty, beside their stubs.

Nothing is known in memory alone, and each step leaves what the next start, or another host, can finish: a
stub waits in staging until its snapshot is there, and what is in staging at a start is removed with all
that it names.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from fspoolfs.backends import layout
from fspoolfs.errors import CorruptError, FspoolError, StorageError
from fspoolfs.model import documents
from fspoolfs.progress import Progress
from fspoolfs.system import ceph
from fspoolfs.system.paths import HostRoot

#: How names of our snapshots begin; the uuid of their item follows, and a token.
_PREFIX = "fspoolfs-"
_NOBODY = "none"
#: Only who administers the host can set attributes of this kind: users of items cannot forge stubs.
STUB = "trusted.fspoolfs.snapshot"
#: Marks the directories that stubs lie in.
_CONTAINER = "trusted.fspoolfs.snapshots"
#: Where the records are: symbolic links, named after the inode number, to the path of a directory.
_RECORDS = f"{layout.OWN}/ceph"
_CLOSED = 0o700
_NOT_THERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE))
_NO_ATTRIBUTE = frozenset((errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS))
_DEFINITION_LIMIT = 4 << 20


class Taken(NamedTuple):
    """A snapshot: the inode number of the directory that it was taken of, and its name there."""

    inode: int
    name: str

    @property
    def home(self) -> str:
        """The directory of the snapshots of the item that it belongs to; "" where there is none."""
        item = self.name.removeprefix(_PREFIX).rpartition("-")[0]
        return f"{layout.SNAPSHOTS}/{item}" if item != _NOBODY else ""


class Snapshots:
    """The snapshots below one root."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root

    # -- stubs ------------------------------------------------------------------------------------

    def at(self, path: str) -> Taken | None:
        """What the directory `path` stands for; `None` when it is no stub."""
        try:
            with self._opened(path) as fd:
                return _read_stub(fd)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise

    def place(self, path: str) -> str:
        """The path of what the snapshot at `path` holds, which is `path` when that is no stub."""
        taken = self.at(path)
        if taken is None:
            return path
        found = self.find(taken.inode)
        if found is None:
            raise CorruptError(
                f"{self._root.location(path)}: the directory that this snapshot was taken of is gone from "
                "the pool, and the snapshot with it"
            )
        return f"{found}/{ceph.SNAPSHOTS}/{taken.name}"

    def take(self, path: str, target: str) -> None:
        """Take a snapshot of the directory `path`; its stub appears at `target` when it is there."""
        name = self._new_name(target)
        waiting = f"{layout.STAGING}/{name}"
        with self._opened(path) as fd:
            taken = Taken(os.fstat(fd).st_ino, name)
            self._make_stub(waiting, taken)
            try:
                self._record(taken.inode, path)
                # What the kernel still has of files that are mapped; ceph-fuse cannot do it by itself.
                self._root.sync()
                self._take(fd, path, name)
                self._mark(target.rpartition("/")[0])
                self._root.rename(waiting, target)
            except BaseException:
                with suppress(
                    OSError
                ):  # the next start removes what is left; the first error is the one to tell
                    ceph.drop(fd, name)
                    self._root.remove_directory(waiting)
                raise
        self._root.sync_directory(target.rpartition("/")[0])

    def _new_name(self, target: str) -> str:
        """Told apart from whatever an administrator takes; says which item's it is."""
        parent, _, item = target.rpartition("/")[0].rpartition("/")
        return f"{_PREFIX}{item if parent == layout.SNAPSHOTS else _NOBODY}-{secrets.token_hex(6)}"

    def _take(self, fd: int, path: str, name: str) -> None:
        where = self._root.location(path)
        try:
            ceph.take(fd, name)
        except OSError as error:
            if error.errno == errno.EMLINK:
                raise StorageError(
                    f"{where} has as many snapshots as the metadata server allows one directory to have "
                    "(mds_max_snaps_per_dir, 100 if nobody changed it); delete one of them, or raise that",
                    errno=errno.EMLINK,
                ) from error
            raise

    def _make_stub(self, path: str, taken: Taken) -> None:
        for directory in (layout.OWN, layout.STAGING, _RECORDS):
            with suppress(FileExistsError):
                self._root.make_directory(directory, mode=_CLOSED)
        self._root.make_directory(path, mode=_CLOSED)
        with self._opened(path) as fd:
            os.setxattr(fd, STUB, f"{taken.inode}/{taken.name}".encode())

    def _mark(self, container: str) -> None:
        """Only once, since that is a request to the server."""
        if not container:
            return
        with self._opened(container) as fd:
            if _attribute(fd, _CONTAINER) is None:
                os.setxattr(fd, _CONTAINER, b"1")

    # -- directories that have snapshots ------------------------------------------------------------

    def find(self, inode: int) -> str | None:
        """Where the directory with this number lies now."""
        recorded = self._recorded(inode)
        if recorded is not None and self._is(recorded, inode):
            return recorded
        for path in self._candidates(inode):
            self._record(inode, path)
            return path
        return None

    def _candidates(self, inode: int) -> Iterator[str]:
        """Looks where fspoolfs keeps directories, then at items, as far as necessary."""
        for place in (layout.TRASH, layout.STAGING, layout.PURGE, layout.SNAPSHOTS, ""):
            for path, found in self._numbers(place):
                if found == inode:
                    yield path
                elif place in (layout.PURGE, layout.SNAPSHOTS) and self._is_container(path):
                    yield from (inside for inside, other in self._numbers(path) if other == inode)
        for location in self._deep_items():
            if self._is(location, inode):
                yield location

    def _numbers(self, place: str) -> list[tuple[str, int]]:
        """The directories in one, and their inode numbers."""
        try:
            return [
                (f"{place}/{name}" if place else name, info.inode)
                for name, info in self._root.entries(place)
                if stat.S_ISDIR(info.mode)
            ]
        except OSError as error:
            if error.errno in _NOT_THERE:
                return []
            raise

    def _deep_items(self) -> Iterator[str]:
        """The places of items that do not lie in the root itself."""
        try:
            definitions = self._root.names(layout.ITEMS)
        except FileNotFoundError:
            return
        for name in definitions:
            with suppress(OSError, FspoolError):  # the pool tells of what cannot be read
                content = self._root.read(f"{layout.ITEMS}/{name}", limit=_DEFINITION_LIMIT)
                location = documents.parse_item(content).location
                if "/" in location:
                    yield location

    def _is(self, path: str, inode: int) -> bool:
        try:
            info = self._root.stat(path)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return False
            raise
        return info.inode == inode and stat.S_ISDIR(info.mode)

    def _recorded(self, inode: int) -> str | None:
        try:
            with self._opened(_RECORDS) as fd:
                return os.readlink(str(inode), dir_fd=fd)
        except FileNotFoundError:
            return None

    def _record(self, inode: int, path: str) -> None:
        if self._recorded(inode) == path:
            return
        with self._opened(_RECORDS) as fd:
            temporary = f".{inode}-{secrets.token_hex(4)}"
            os.symlink(path, temporary, dir_fd=fd)
            os.rename(temporary, str(inode), src_dir_fd=fd, dst_dir_fd=fd)

    def _forget(self, inode: int) -> None:
        with suppress(FileNotFoundError), self._opened(_RECORDS) as fd:
            os.unlink(str(inode), dir_fd=fd)

    def moved(self, path: str) -> None:
        """A directory or a stub has come to `path`: keep up to date what is written down of it."""
        with self._opened(path) as fd:
            inode, is_stub = os.fstat(fd).st_ino, _read_stub(fd) is not None
        if is_stub:
            self._mark(path.rpartition("/")[0])
        elif self._recorded(inode) is not None:
            self._record(inode, path)

    # -- removing -----------------------------------------------------------------------------------

    def remove(self, path: str, progress: Progress) -> None:
        """Remove a stub with its snapshot, a directory of stubs, or a directory with its own snapshots.

        One of the latter of which others are left is emptied, and goes with the last of them.
        """
        taken = self.at(path)
        if taken is not None:
            self._discard(path, taken)
            return
        try:
            with self._opened(path) as fd:
                inode, container = os.fstat(fd).st_ino, _attribute(fd, _CONTAINER) is not None
                own = set(ceph.snapshots(fd))
                kept = set() if container else own & self._named(inode, own)
                for name in own - kept:
                    ceph.drop(fd, name)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            inode, container, kept = 0, False, set()  # no directory, or one that is gone
        if container:
            self._remove_stubs(path, progress)
        if kept:
            self._empty(path, progress)
            self._set_aside(path, Taken(inode, min(kept)))
        else:
            self._root.remove_tree(path, progress, release=ceph.drop_all)
            self._forget(inode)

    def _named(self, inode: int, names: set[str]) -> set[str]:
        """Which of a directory's snapshots a stub stands for; others were left by an interruption.

        First where stubs come from, then where they go to: one that moves meanwhile is seen.
        """
        ours = [Taken(inode, name) for name in names if name.startswith(_PREFIX)]
        found = {taken.name for taken in ours if not taken.home}
        homes = {taken.home for taken in ours if taken.home}
        for place in (layout.STAGING, *homes, layout.PURGE):
            for path, _ in self._numbers(place) if ours else ():
                found |= {taken.name for taken in self._stubs(path) if taken.inode == inode}
        return found

    def _stubs(self, path: str) -> Iterator[Taken]:
        """What a directory stands for, or those in it."""
        taken = self.at(path)
        if taken is not None:
            yield taken
        elif self._is_container(path):
            yield from filter(None, (self.at(inside) for inside, _ in self._numbers(path)))

    def _is_container(self, path: str) -> bool:
        try:
            with self._opened(path) as fd:
                return _attribute(fd, _CONTAINER) is not None
        except OSError as error:
            if error.errno in _NOT_THERE:
                return False
            raise

    def _remove_stubs(self, container: str, progress: Progress) -> None:
        """And what is written down of the directories among them, which go with the container."""
        others = []
        for path, inode in self._numbers(container):
            taken = self.at(path)
            if taken is not None:
                self._discard(path, taken)
                progress.advance(1)
            else:
                others.append(inode)
        for inode in others:
            self._forget(inode)

    def _discard(self, path: str, taken: Taken) -> None:
        """Remove a snapshot, and then its stub at `path`; what is gone of them is no error."""
        found = self.find(taken.inode)
        if found is not None:
            with self._opened(found) as fd:
                if os.fstat(fd).st_ino != taken.inode:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), found)
                ceph.drop(fd, taken.name)
                left = any(name.startswith(_PREFIX) for name in ceph.snapshots(fd))
            if not left and (found.startswith(f"{layout.PURGE}/") or _is_set_aside(found)):
                self._let_go(found, taken.inode)
        with suppress(FileNotFoundError):
            self._root.remove_directory(path)

    def _let_go(self, path: str, inode: int) -> None:
        """Remove what was set aside, unless its content is still to be removed."""
        try:
            self._root.remove_directory(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
        else:
            self._forget(inode)

    def _empty(self, path: str, progress: Progress) -> None:
        """Remove all that a directory holds; its snapshots keep it."""
        for name in self._root.names(path):
            with suppress(FileNotFoundError):
                self._root.remove_tree(f"{path}/{name}", progress, release=ceph.drop_all)

    def _set_aside(self, path: str, taken: Taken) -> None:
        """Where people can go through it to its snapshots, or where it goes with the last of them."""
        aside = f"{taken.home or layout.PURGE}/.{taken.inode}"
        if path == aside:
            return
        with self._opened(path) as fd:
            # Nobody writes there any more, and who may read what is told by the snapshot itself.
            os.fchmod(fd, layout.PASSABLE)
        try:
            self._root.rename(path, aside)
        except FileNotFoundError:  # the item is purged, and where its snapshots were is gone
            if path.startswith(f"{layout.PURGE}/"):
                return
            aside = f"{layout.PURGE}/.{taken.inode}"
            with suppress(FileExistsError):
                self._root.make_directory(layout.PURGE, mode=_CLOSED)
            self._root.rename(path, aside)
        self._record(taken.inode, aside)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = self._root.open_directory(path)
        try:
            yield fd
        finally:
            os.close(fd)


def _attribute(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTE:
            raise
        return None


def _read_stub(fd: int) -> Taken | None:
    value = _attribute(fd, STUB)
    if value is None:
        return None
    inode, _, name = value.decode("ascii", "replace").partition("/")
    return Taken(int(inode), name) if inode.isdigit() and name.startswith(_PREFIX) else None


def _is_set_aside(path: str) -> bool:
    """Whether `path` is where `_set_aside` puts directories."""
    return path.startswith(f"{layout.OWN}/") and path.rpartition("/")[2].startswith(".")
