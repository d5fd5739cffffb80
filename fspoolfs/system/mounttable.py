"""One reading of the mounts of every mount namespace, and the search in it.

One process stands for each namespace: the one with the lowest number, which in a container is its
first. Namespaces without a process (kept by a file alone) are not seen, and neither are, for users
other than root, those of other users' processes.
"""

from __future__ import annotations

import errno
import os
import select
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from fspoolfs.model.infos import MountUse
from fspoolfs.system import attributes, syscalls
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.mounts import is_beneath, unescape

#: More namespaces than this are read but not watched: each watched one costs a descriptor.
WATCHED = 256
#: How often a namespace is read again that changed while it was being read.
_ATTEMPTS = 3

#: A process that ended, one without namespaces (a zombie), one that is not ours to look at.
_UNSEEN = frozenset((errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.EACCES, errno.EPERM))
#: What the kernel appends to the root of a mount whose directory was removed (fs/d_path.c).
_DELETED = "//deleted"


@dataclass(slots=True, eq=False)
class _Line:
    """The part of a mountinfo line that matters, still escaped. Not frozen: there are thousands."""

    namespace: _Namespace
    mount_id: bytes
    parent_id: bytes
    device: bytes
    root: bytes
    target: bytes


class _Namespace:
    """One mount namespace: `link` names it as /proc does, `pid` stands for it."""

    __slots__ = ("lines", "link", "pid")

    def __init__(self, link: str, pid: int) -> None:
        self.link = link
        self.pid = pid
        self.lines: list[_Line] = []

    def fill(self, text: bytes) -> None:
        self.lines = [_Line(self, *line.split(b" ", 5)[:5]) for line in text.splitlines()]

    def find(self, mount_id: bytes) -> _Line | None:
        return next((line for line in self.lines if line.mount_id == mount_id), None)


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory as mountinfo names it. `mount` is set when it is the root of a mount of ours."""

    device: bytes
    path: str
    mount: _Line | None


class MountTable:
    """All mounts, as they were when it was read. `watchable`: every change of them can be seen."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _Namespace] = {}
        self._by_device: dict[bytes, list[_Line]] = {}
        self._watched: list[Descriptor] = []
        self._poll = select.poll()
        self._own = os.readlink("/proc/self/ns/mnt")

    @classmethod
    def read(cls) -> MountTable:
        """Read all namespaces. Raises `OSError` when that fails for want of descriptors or memory."""
        table = cls()
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            link = namespace_of(pid)
            if link is not None and link not in table._namespaces:
                table._add(pid, link)
        for namespace in table._namespaces.values():
            for line in namespace.lines:
                table._by_device.setdefault(line.device, []).append(line)
        return table

    @cached_property
    def _own_targets(self) -> list[tuple[str, _Line]]:
        """The mounts of our own namespace, sorted by their targets."""
        lines = self._namespaces[self._own].lines
        return sorted(((unescape(line.target), line) for line in lines), key=itemgetter(0))

    @property
    def watchable(self) -> bool:
        return len(self._watched) == len(self._namespaces)

    def changed(self) -> bool:
        """Whether a mount was made, moved or taken away in one of the watched namespaces."""
        return bool(self._poll.poll(0))

    def knows(self, pid: int) -> bool:
        """Whether the namespace of `pid` was read; True for a process that is not there to be seen."""
        link = namespace_of(pid)
        return link is None or link in self._namespaces

    def uses(self, path: str) -> list[MountUse] | None:
        """The mounts that show the directory `path` or something in it.

        `None` when `path` lies on a mount that this table does not have.
        """
        directory = self._locate(path)
        if directory is None:
            return None
        found = [
            MountUse(
                pid=line.namespace.pid,
                command=_command(line.namespace.pid),
                inside=inside,
                target=unescape(line.target),
            )
            for line, inside in (*self._showing(directory), *self._showing_attached(path))
        ]
        return sorted(found, key=lambda use: (use.pid, use.inside, use.target))

    def _add(self, pid: int, link: str) -> None:
        for _ in range(_ATTEMPTS):
            # The namespace of our own threads is read through ourselves: `pid` may be in a chroot.
            descriptor = _open_mountinfo("self" if link == self._own else str(pid))
            if descriptor is None or namespace_of(pid) != link:
                return  # gone, or moved on: another process may stand for the namespace
            namespace = _Namespace(link, pid)
            namespace.fill(_read(descriptor.fd))
            self._namespaces[link] = namespace
            if not _has_changed(descriptor.fd):
                break
        else:
            return
        if len(self._watched) < WATCHED:
            self._watched.append(descriptor)
            self._poll.register(descriptor.fd, select.POLLPRI | select.POLLERR)

    def _locate(self, path: str) -> _Directory | None:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mount_id = str(syscalls.mount_id(fd)).encode("ascii")
            real = os.readlink(attributes.proc_path(fd))
        finally:
            os.close(fd)
        own = self._namespaces.get(self._own)
        line = own.find(mount_id) if own is not None else None
        if line is None:
            return None
        place = _place(line, real)
        if place is None:
            return None
        return _Directory(line.device, place, line if place == unescape(line.root) else None)

    def _showing(self, directory: _Directory) -> Iterator[tuple[_Line, str]]:
        """Each mount that shows something of `directory`, and what, counted from it."""
        for line in self._by_device.get(directory.device, ()):
            root = unescape(line.root)
            if root.endswith(_DELETED):
                # No longer anywhere in the directory, but it keeps the file system busy.
                if directory.mount is not None and is_beneath(root, directory.path):
                    yield line, ""
            elif is_beneath(root, directory.path):
                inside = root[len(directory.path) :].strip("/")
                if inside or not _is_storage(line, directory.mount):
                    yield line, inside

    def _showing_attached(self, path: str) -> Iterator[tuple[_Line, str]]:
        """The same for what is mounted in the directory itself: items may be file systems of their own."""
        below, targets = f"{path.rstrip('/')}/", self._own_targets
        # What begins with the same words lies together.
        for number in range(bisect_left(targets, below, key=itemgetter(0)), len(targets)):
            target, own = targets[number]
            if not target.startswith(below):
                break
            place = target[len(below) :]
            for line, inside in self._showing(_Directory(own.device, unescape(own.root), own)):
                yield line, f"{place}/{inside}" if inside else place


def namespace_of(pid: int) -> str | None:
    """The name of the mount namespace of a process or thread, or `None` when it cannot be seen."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError as error:
        if error.errno not in _UNSEEN:
            raise
        return None


def _open_mountinfo(pid: str) -> Descriptor | None:
    try:
        return Descriptor(os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in _UNSEEN:
            raise
        return None


def _read(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def _has_changed(fd: int) -> bool:
    """Whether the namespace changed since its mountinfo was opened (mounts_poll, fs/proc_namespace.c)."""
    poll = select.poll()
    poll.register(fd, select.POLLPRI | select.POLLERR)
    return bool(poll.poll(0))


def _place(line: _Line, path: str) -> str | None:
    """Where `path`, seen through the mount `line`, lies in that mount's file system."""
    target = unescape(line.target)
    if not is_beneath(path, target):
        return None
    below = path[len(target) :].strip("/")
    root = unescape(line.root)
    return f"{root.rstrip('/')}/{below}" if below else root


def _is_storage(line: _Line, own: _Line | None) -> bool:
    """Whether `line` is the mount that attaches the directory itself, or its copy in a namespace that
    was made from ours: one on the same place of the same file system.
    """
    return own is not None and (line is own or _mount_point(line) == _mount_point(own) is not None)


def _mount_point(line: _Line) -> tuple[bytes, str | None] | None:
    parent = line.namespace.find(line.parent_id)
    return None if parent is None else (parent.device, _place(parent, unescape(line.target)))


def _command(pid: int) -> str:
    """The name of a process, which it can choose itself, without what would break a line."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().decode("utf-8", "replace").removesuffix("\n")
    except OSError as error:
        if error.errno not in _UNSEEN:
            raise
        return "(ended)"
    return "".join(letter if letter.isprintable() else "?" for letter in name)
