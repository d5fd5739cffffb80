"""Showing a directory read-only in another place: a bind mount that is read-only from the beginning.

The new mount API (open_tree(2), mount_setattr(2), move_mount(2); Linux 5.12) sets a mount's attributes
before anybody can see it, and takes the source as a descriptor, so no path is followed.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from fspoolfs.system import syscalls

#: Passable for everyone, to be listed by nobody.
_MODE = 0o711

# Calls since 5.1 have one number everywhere: include/uapi/asm-generic/unistd.h.
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_MOUNT_SETATTR = 442

# include/uapi/linux/mount.h, include/uapi/linux/fcntl.h
_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_AT_FDCWD = -100

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class _MountAttributes(ctypes.Structure):
    """struct mount_attr, include/uapi/linux/mount.h."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


class ReadOnlyMounts:
    """Mounts directories read-only, nosuid and nodev. Needs CAP_SYS_ADMIN."""

    def show(self, fd: int, at: str) -> None:
        """Mount the directory behind `fd` at `at`, made if missing; what else is mounted there goes.

        Raises `OSError`: EPERM without the right to mount, ENOSYS on older kernels.
        """
        if _shows(at, fd):
            return
        self.hide(at)
        for directory in (os.path.dirname(at), at):
            with suppress(FileExistsError):
                os.mkdir(directory, _MODE)
        # With what is mounted below: snapshots may be file systems of their own.
        flags = _AT_EMPTY_PATH | _AT_RECURSIVE
        tree = _call(_NR_OPEN_TREE, fd, b"", flags | _OPEN_TREE_CLONE | os.O_CLOEXEC)
        try:
            wanted = _MountAttributes(_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV, 0, 0, 0)
            size = ctypes.c_size_t(ctypes.sizeof(wanted))
            _call(_NR_MOUNT_SETATTR, tree, b"", flags, ctypes.byref(wanted), size)
            _call(_NR_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(at), _MOVE_MOUNT_F_EMPTY_PATH)
        finally:
            os.close(tree)

    def hide(self, at: str) -> None:
        """Take away what is mounted at `at`, used or not, and the directory; it may be gone."""
        try:
            while True:
                syscalls.unmount(at, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        try:
            os.rmdir(at)
        except FileNotFoundError:
            return


def _shows(at: str, fd: int) -> bool:
    """Whether the directory behind `fd` is mounted at `at` already, read-only."""
    try:
        there, wanted = os.stat(at), os.fstat(fd)
        read_only = os.statvfs(at).f_flag & os.ST_RDONLY
    except OSError:
        return False
    return bool(read_only) and (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino)


def _call(number: int, *arguments: object) -> int:
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
