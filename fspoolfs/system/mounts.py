"""What is mounted where, as the kernel's mountinfo tells it, and taking a mount away by force."""

from __future__ import annotations

import errno
import os
import re
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fspoolfs.system import command, syscalls
from fspoolfs.system.descriptors import Descriptor

_UMOUNT_TIMEOUT = 30.0
#: Seconds for which `recent` keeps a reading: that a directory above a mount was renamed shows nowhere.
KEPT = 1.0

# mangle_path() of fs/seq_file.c writes blanks, newlines, backslashes and # as three octal digits.
_ESCAPED = re.compile(rb"[ \t\n\\#]")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo (proc_pid_mountinfo(5)).

    `device` is "major:minor" of the file system, `root` the directory of it that is shown, `target`
    where. Both as the reading process sees them; names that are not UTF-8 carry surrogates.
    """

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: str
    fs_type: str
    source: str


class Table(tuple[Mount, ...]):
    """Mounts that are looked through more than once."""

    @cached_property
    def tree(self) -> _Tree:
        return _tree(self)


@dataclass(frozen=True, slots=True)
class _Tree:
    """The mount that shows "/", and by the number of each mount those that are mounted in it."""

    root: Mount | None
    children: Mapping[int, Sequence[Mount]]


def _tree(table: Sequence[Mount]) -> _Tree:
    known = {mount.mount_id for mount in table}
    children: dict[int, list[Mount]] = {}
    root: Mount | None = None
    for mount in table:
        if mount.parent_id in known and mount.parent_id != mount.mount_id:
            children.setdefault(mount.parent_id, []).append(mount)
        elif mount.target == "/":
            root = mount
    return _Tree(root, children)


def mounts(pid: int | str = "self") -> tuple[Mount, ...]:
    """The mounts of a process's namespace that lie below its root, in the kernel's order.

    Raises `OSError` when the process is gone or belongs to somebody else.
    """
    with open(f"/proc/{pid}/mountinfo", "rb") as lines:
        return parse(lines.read())


class _Recent:
    """The last reading of our own mounts, and what tells that it is outdated. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table: Table | None = None
        self._changes: Descriptor | None = None
        self._namespace = ""
        self._expires = 0.0

    def table(self) -> Table:
        with self._lock:
            namespace = os.readlink("/proc/self/ns/mnt")
            if self._table is None or namespace != self._namespace or self._is_outdated():
                self._table = None
                # Opened before it is read, so that no change between the two is missed.
                changes = Descriptor(os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC))
                self._expires = time.monotonic() + KEPT
                self._table, self._changes, self._namespace = Table(mounts()), changes, namespace
            return self._table

    def forget(self) -> None:
        with self._lock:
            self._table = self._changes = None

    def _is_outdated(self) -> bool:
        if self._changes is None or time.monotonic() >= self._expires:
            return True
        poll = select.poll()
        # proc(5): a change of the mounts is an exceptional condition.
        poll.register(self._changes.fd, select.POLLPRI | select.POLLERR)
        return bool(poll.poll(0))


_recent = _Recent()


def recent() -> Table:
    """The mounts of this process's namespace for those who look regularly, many of them: read anew only
    after a change, or after `KEPT` seconds.
    """
    return _recent.table()


def forget_recent() -> None:
    """Close what `recent` keeps open between two looks."""
    _recent.forget()


def parse(text: bytes) -> tuple[Mount, ...]:
    """The lines of a mountinfo file."""
    return tuple(_parse_line(line) for line in text.splitlines())


def _parse_line(line: bytes) -> Mount:
    head, _, tail = line.partition(b" - ")
    mount_id, parent_id, device, root, target, options = head.split(b" ")[:6]
    fs_type, source = tail.split(b" ")[:2]
    return Mount(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=device.decode("ascii"),
        root=unescape(root),
        target=unescape(target),
        options=options.decode("utf-8", "surrogateescape"),
        fs_type=unescape(fs_type),
        source=unescape(source),
    )


def unescape(field: bytes) -> str:
    """A field of mountinfo as the path that it stands for."""
    if b"\\" in field:
        field = _ESCAPE.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), field)
    return os.fsdecode(field)


def mount_at(path: str, table: Sequence[Mount] | None = None) -> Mount | None:
    """The mount that is seen at `path`, or `None` when nothing is mounted exactly there.

    `path` is absolute, without symbolic links; nothing is touched on the file system. `table` is what
    `mounts` has just told.
    """
    found = containing(mounts() if table is None else table, path)
    return found if found is not None and found.target == os.path.normpath(path) else None


def last_on(path: str) -> Mount | None:
    """The last mount on exactly `path`, which one that only root reaches has nobody else covering.

    As `mount_at`, but quick where there are thousands: only the lines with that path are looked into.
    """
    encoded = b" " + _ESCAPED.sub(lambda match: b"\\%03o" % match[0][0], os.fsencode(path)) + b" "
    with open("/proc/self/mountinfo", "rb") as lines:
        text = lines.read()
    end = len(text)
    while (at := text.rfind(encoded, 0, end)) >= 0:
        begin = text.rfind(b"\n", 0, at) + 1
        found = _parse_line(text[begin : text.find(b"\n", at)])
        if found.target == path:
            return found
        end = begin  # it is what another one shows
    return None


def with_id(mount_id: int) -> Mount | None:
    """The mount with this number, or `None` when there is none; as quick as `last_on`."""
    with open("/proc/self/mountinfo", "rb") as lines:
        text = b"\n" + lines.read()
    at = text.find(b"\n%d " % mount_id) + 1
    return _parse_line(text[at : text.find(b"\n", at)]) if at else None


def containing(table: Sequence[Mount], path: str) -> Mount | None:
    """Walk down `path` as the kernel does: mounts that others cover are not seen."""
    path = os.path.normpath(path)
    tree = table.tree if isinstance(table, Table) else _tree(table)
    here = tree.root
    while here is not None:
        inside = tree.children.get(here.mount_id, ())
        on_the_way = [child for child in inside if is_beneath(path, child.target)]
        if not on_the_way:
            break
        # The shortest is met first; what lies below it is hidden, whenever it was mounted.
        here = min(on_the_way, key=lambda child: len(child.target))
    return here


def is_beneath(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies in it; both absolute and normal."""
    return directory == "/" or path == directory or path.startswith(f"{directory}/")


def is_stale_fuse(path: str) -> bool:
    """Whether `path` is the mount of a FUSE server that has died.

    Asks with statfs(2), which no cache of the kernel answers, as one of attributes may.
    """
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def unmount(path: str) -> None:
    """Unmount what is mounted at `path`; refused while it is in use.

    Raises `OSError` (EBUSY), and `StorageError` where fusermount3, which does it for users other than
    root, refuses.
    """
    if os.geteuid() == 0:
        syscalls.unmount(path, syscalls.UMOUNT_NOFOLLOW)
    else:
        command.run(["fusermount3", "-u", "--", path], timeout=_UMOUNT_TIMEOUT)


def unmount_lazily(path: str) -> None:
    """Take the mount at `path` out of the tree at once; it ends when its last user does.

    Raises `OSError` (EINVAL: nothing is mounted there), and `StorageError` where fusermount3, which
    does it for users other than root, refuses.
    """
    if os.geteuid() == 0:
        syscalls.unmount(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    else:
        command.run(["fusermount3", "-u", "-z", "--", path], timeout=_UMOUNT_TIMEOUT)
