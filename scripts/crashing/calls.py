"""Which system calls change storage, and what a call that is about to be made would change.

Only what lies in given directories counts, and what becomes of loop devices and mounts: answers to the
kernel's FUSE requests, wake-ups and the log are written all the time and change no storage.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crashing.errors import CrashtestError

#: Calls on an open file, and which argument is its descriptor.
_ON_DESCRIPTOR = {
    "write": 0, "writev": 0, "pwrite64": 0, "pwritev": 0, "pwritev2": 0, "sendfile": 0,
    "copy_file_range": 2, "fallocate": 0, "ftruncate": 0, "fsync": 0, "fdatasync": 0, "syncfs": 0,
    "sync_file_range": 0, "fchmod": 0, "fchown": 0, "fsetxattr": 0, "fremovexattr": 0, "ioctl": 0,
    "fsconfig": 0,
}  # fmt: skip
#: Calls on a path, and which arguments are the directory's descriptor, or None, and the path. Of two
#: paths it is the one that is made.
_ON_PATH = {
    "mkdir": (None, 0), "mkdirat": (0, 1), "rmdir": (None, 0), "mknod": (None, 0), "mknodat": (0, 1),
    "rename": (None, 1), "renameat": (2, 3), "renameat2": (2, 3), "unlink": (None, 0), "unlinkat": (0, 1),
    "link": (None, 1), "linkat": (2, 3), "symlink": (None, 1), "symlinkat": (1, 2), "truncate": (None, 0),
    "chmod": (None, 0), "fchmodat": (0, 1), "fchmodat2": (0, 1), "chown": (None, 0), "lchown": (None, 0),
    "fchownat": (0, 1), "utimensat": (0, 1), "setxattr": (None, 0), "lsetxattr": (None, 0),
    "removexattr": (None, 0), "lremovexattr": (None, 0), "creat": (None, 0), "open": (None, 0),
    "openat": (0, 1), "openat2": (0, 1), "umount2": (None, 0), "move_mount": (2, 3),
}  # fmt: skip
#: Calls that change something only with these flags, and where the flags are.
_FLAGS = {"open": 1, "openat": 2, "openat2": 2}
_CHANGING_FLAGS = os.O_CREAT | os.O_TRUNC
#: ioctl(2) requests that change storage. include/uapi/linux/fs.h: FICLONE, FICLONERANGE,
#: FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR; include/uapi/linux/btrfs.h: SNAP_CREATE_V2, SUBVOL_CREATE_V2,
#: SUBVOL_SETFLAGS, SNAP_DESTROY_V2, QGROUP_ASSIGN, QGROUP_CREATE, QGROUP_LIMIT, QUOTA_CTL, RESIZE;
#: include/uapi/linux/loop.h: CLR_FD, SET_CAPACITY, CONFIGURE; BLKDISCARD and BLKZEROOUT.
_CHANGING_REQUESTS = (
    frozenset((0x40049409, 0x4020940D, 0x40086602, 0x401C5820))
    | frozenset((0x50009417, 0x50009418, 0x4008941A, 0x5000943F, 0x40189429, 0x4010942A, 0x8030942B))
    | frozenset((0xC0109428, 0x50009403, 0x4C01, 0x4C07, 0x4C0A, 0x1277, 0x127F))
)
#: fsconfig(2): FSCONFIG_CMD_CREATE is what reads a file system's superblock and replays its log.
_CREATE = 6
#: What is not in a directory and counts all the same: nobody but our daemons and their programs, which
#: are followed, has these devices open.
_EVERYWHERE = ("/dev/loop", "anon_inode:[fscontext]")

_AT_FDCWD = -100
#: A path by which a process names one of its own descriptors, proc(5).
_OWN_DESCRIPTOR = "/proc/self/fd/"
_PATH_MAX = 4096


@dataclass(frozen=True, slots=True)
class Call:
    """A call that would change something at `target`."""

    name: str
    target: str


def numbers() -> dict[int, str]:
    """The calls above by their numbers on this machine, as its C compiler has them."""
    command = ("cc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null")
    try:
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CrashtestError(
            f"the numbers of system calls cannot be had from the C compiler: {error}"
        ) from error
    defined = dict(line.split(" ", 2)[1:] for line in output.splitlines() if line.startswith("#define __NR"))
    found = {}
    for name in (*_ON_DESCRIPTOR, *_ON_PATH):
        value = f"__NR_{name}"
        while value in defined:
            value = defined[value]
        if value.isdigit():  # not every architecture has the old calls
            found[int(value)] = name
    return found


class Judge:
    """Tells the calls that change something in `directories` from all others."""

    def __init__(self, names: Mapping[int, str], directories: Sequence[str]) -> None:
        self._names = names
        inside = (f"{directory.rstrip('/')}/" for directory in directories)
        self._counting = (*inside, *_EVERYWHERE)

    def judge(self, tid: int, number: int, arguments: Sequence[int]) -> Call | None:
        """The call of thread `tid`, if it is one that counts. The thread is held at its entry."""
        name = self._names.get(number)
        return _Reading(tid).call(name, arguments, self._counting) if name is not None else None


class _Reading:
    """What the arguments of a call mean to thread `tid`, which is held."""

    def __init__(self, tid: int) -> None:
        self._descriptors = Path(f"/proc/{tid}/fd")
        self._memory = Path(f"/proc/{tid}/mem")

    def call(self, name: str, arguments: Sequence[int], counting: tuple[str, ...]) -> Call | None:
        if not self._changes(name, arguments):
            return None
        target = self._target(name, arguments)
        return Call(name, target) if f"{target}/".startswith(counting) else None

    def _changes(self, name: str, arguments: Sequence[int]) -> bool:
        if name == "ioctl":
            return arguments[1] & 0xFFFFFFFF in _CHANGING_REQUESTS
        if name == "fsconfig":
            return arguments[1] == _CREATE
        if name not in _FLAGS:
            return True
        flags = arguments[_FLAGS[name]]
        if name == "openat2":  # struct open_how begins with them
            flags = int.from_bytes(self._read(flags, 8), "little")
        return bool(flags & _CHANGING_FLAGS)

    def _target(self, name: str, arguments: Sequence[int]) -> str:
        if name in _ON_DESCRIPTOR:
            return self._descriptor(arguments[_ON_DESCRIPTOR[name]])
        at, where = _ON_PATH[name]
        path = os.fsdecode(self._read(arguments[where], _PATH_MAX).partition(b"\0")[0])
        if path.startswith(_OWN_DESCRIPTOR):
            return self._descriptor(int(path.removeprefix(_OWN_DESCRIPTOR)))
        base = "/" if at is None else self._descriptor(arguments[at])
        return os.path.join(base, path).rstrip("/")

    def _descriptor(self, argument: int) -> str:
        """Where a descriptor leads; an argument is an int in a register of 64 bits."""
        fd = (argument & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
        if fd == _AT_FDCWD:
            return "/"  # where daemons work
        try:
            return os.readlink(self._descriptors / str(fd))
        except FileNotFoundError:
            return ""

    def _read(self, address: int, size: int) -> bytes:
        """Memory of the process; less than `size` bytes where its mapping ends."""
        with self._memory.open("rb", buffering=0) as memory:
            page = os.sysconf("SC_PAGE_SIZE")
            data = b""
            while len(data) < size:
                piece = min(size - len(data), page - (address + len(data)) % page)
                try:
                    data += os.pread(memory.fileno(), piece, address + len(data))
                except OSError:
                    break
            return data
