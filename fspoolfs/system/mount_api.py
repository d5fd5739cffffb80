"""The new mount API, whose calls Python lacks: mounts as descriptors, before they are anywhere in the tree.

fsopen(2), open_tree(2), move_mount(2) since Linux 5.2, mount_setattr(2) since 5.12.
"""

from __future__ import annotations

import ctypes
import errno
import os

# Calls since 5.1 have one number everywhere: include/uapi/asm-generic/unistd.h.
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_MOUNT_SETATTR = 442

# include/uapi/linux/mount.h, include/uapi/linux/fcntl.h
READ_ONLY, NOSUID, NODEV = 0x1, 0x2, 0x4
_IDMAP = 0x00100000
MS_PRIVATE, MS_SHARED = 1 << 18, 1 << 20
_CLOEXEC = 0x1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_FROM_EMPTY_PATH, _TO_EMPTY_PATH = 0x4, 0x40
_CLONE = 0x1
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_AT_FDCWD = -100

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class _Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def open_file_system(fs_type: str) -> int:
    """A descriptor for setting up a new mount of a type of file system."""
    return _call(_NR_FSOPEN, fs_type.encode(), _CLOEXEC)


def set_flag(context: int, name: str) -> None:
    _call(_NR_FSCONFIG, context, _SET_FLAG, name.encode(), None, 0)


def set_string(context: int, name: str, text: str) -> None:
    _call(_NR_FSCONFIG, context, _SET_STRING, name.encode(), os.fsencode(text), 0)


def create(context: int) -> None:
    """Read the file system that was set up."""
    _call(_NR_FSCONFIG, context, _CREATE, None, None, 0)


def mount(context: int, attributes: int) -> int:
    """A descriptor (O_PATH) of the mount, which is nowhere yet."""
    return _call(_NR_FSMOUNT, context, _CLOEXEC, attributes)


def copy_tree(directory: int, *, recursive: bool = False) -> int:
    """A descriptor (O_PATH) of another mount of what `directory` was opened on, which is nowhere yet.

    A `recursive` one has copies of all that is mounted in the directory.
    """
    flags = _AT_EMPTY_PATH | _CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _call(_NR_OPEN_TREE, directory, b"", flags)


def set_attributes(tree: int, wanted: int, *, propagation: int = 0, recursive: bool = False) -> None:
    attributes = _Attributes(wanted, 0, propagation, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _call(_NR_MOUNT_SETATTR, tree, b"", flags, ctypes.byref(attributes), size)


def map_ids(tree: int, attributes: int, user_namespace: int) -> None:
    """Let a copied mount show ids as the namespace behind a descriptor maps them, and set `attributes`.

    Raises `OSError`: EINVAL where the file system cannot, ENOSYS before Linux 5.12.
    """
    wanted = _Attributes(attributes | _IDMAP, 0, 0, user_namespace)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _call(_NR_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size)


def move(tree: int, place: int) -> None:
    """Put a mount onto the directory behind the descriptor `place`."""
    _call(_NR_MOVE_MOUNT, tree, b"", place, b"", _FROM_EMPTY_PATH | _TO_EMPTY_PATH)


def move_to_path(tree: int, path: str) -> None:
    _call(_NR_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _FROM_EMPTY_PATH)


def _call(number: int, *arguments: object) -> int:
    while True:
        result: int = _syscall(ctypes.c_long(number), *arguments)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
