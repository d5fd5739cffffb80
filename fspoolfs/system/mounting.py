"""Mounting a block device: made ready where nobody can see it, and put in its place in one step.

The new mount API (fsopen(2), fsmount(2), move_mount(2); Linux 5.2) hands out a mount as a descriptor
before it is anywhere in the tree. What is looked at through it is the device's file system for
certain, and a process that is killed meanwhile leaves nothing mounted. nosuid and nodev always.
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

# include/uapi/linux/mount.h
_CLOEXEC = 0x1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_FROM_EMPTY_PATH, _TO_EMPTY_PATH = 0x4, 0x40
_READ_ONLY, _NOSUID, _NODEV = 0x1, 0x2, 0x4
_CLONE = 0x1
_AT_EMPTY_PATH = 0x1000
_MS_PRIVATE, _MS_SHARED = 1 << 18, 1 << 20

#: Options that are a mount's and not the file system's, with their MOUNT_ATTR_*.
_ATTRIBUTES = {
    "ro": _READ_ONLY,
    "noexec": 0x8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
    # What is so anyway.
    **dict.fromkeys(("nosuid", "nodev", "rw", "exec", "relatime", "defaults"), 0),
}
#: Options that a pool's root never has.
FORBIDDEN = frozenset({"suid", "dev", "loop", "remount", "bind", "rbind", "move"})

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class _Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


class MountError(OSError):
    """The kernel's refusal; `told` is what the file system said about it, which is often nothing."""

    told: str = ""


def mount_detached(device: str, fs_type: str, options: str) -> int:
    """A descriptor (O_PATH) of the root of the file system on `device`, mounted nowhere.

    It is unmounted when the descriptor is closed, although what was opened in it stays, unless `move`
    has put it somewhere. `options` is a
    list with commas, as mount(8) takes it. Raises `MountError`.
    """
    words = [word for word in options.split(",") if word]
    attributes = _NOSUID | _NODEV
    context = _call(_NR_FSOPEN, fs_type.encode(), _CLOEXEC)
    try:
        _configure(context, _SET_STRING, "source", device)
        for word in words:
            name, equals, text = word.partition("=")
            attributes |= _ATTRIBUTES.get(word, 0)
            if equals:
                _configure(context, _SET_STRING, name, text)
            elif word == "ro" or word not in _ATTRIBUTES:
                _configure(context, _SET_FLAG, word)
        _configure(context, _CREATE)
        return _call(_NR_FSMOUNT, context, _CLOEXEC, attributes)
    finally:
        os.close(context)


def unsupported_options(options: str) -> list[str]:
    """Those of a list with commas that are no attributes of a mount but a file system's own."""
    return [word for word in options.split(",") if word and word not in _ATTRIBUTES]


def copy_detached(directory: int, options: str = "") -> int:
    """A descriptor (O_PATH) of what is mounted where `directory` was opened, without what is mounted in it.

    Mounted nowhere, with the attributes that `options` names; as with `mount_detached`.
    """
    attributes = _NOSUID | _NODEV
    for word in options.split(","):
        attributes |= _ATTRIBUTES.get(word, 0)
    tree = _call(_NR_OPEN_TREE, directory, b"", _AT_EMPTY_PATH | _CLONE | os.O_CLOEXEC)
    try:
        _set_attributes(tree, _Attributes(attributes, 0, _MS_PRIVATE, 0))
    except OSError:
        os.close(tree)
        raise
    return tree


def forbid_writing(mount: int) -> None:
    """Make the mount read-only whose root `mount` is a descriptor of."""
    _set_attributes(mount, _Attributes(_READ_ONLY, 0, 0, 0))


def share(mount: int) -> None:
    """Let what is mounted in it from now on appear in later copies of the mount, too."""
    _set_attributes(mount, _Attributes(0, 0, _MS_SHARED, 0))


def stop_sharing(mount: int) -> None:
    """Undo `share`: only then what is mounted in it can be moved elsewhere."""
    _set_attributes(mount, _Attributes(0, 0, _MS_PRIVATE, 0))


def _set_attributes(mount: int, wanted: _Attributes) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _call(_NR_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size)


def move(mount: int, place: int) -> None:
    """Put what `mount_detached` has returned on the directory behind the descriptor `place`."""
    _call(_NR_MOVE_MOUNT, mount, b"", place, b"", _FROM_EMPTY_PATH | _TO_EMPTY_PATH)


def _configure(context: int, command: int, name: str = "", text: str = "") -> None:
    key = name.encode() if name else None
    value = os.fsencode(text) if command == _SET_STRING else None
    try:
        _call(_NR_FSCONFIG, context, command, key, value, 0)
    except OSError as error:
        refusal = MountError(error.errno, error.strerror)
        refusal.told = _told(context) or (f"option {name!r}" if name else "")
        raise refusal from None


def _told(context: int) -> str:
    """The messages of the file system about what it was asked (fsopen(2)): "e ext4: ..."."""
    found: list[str] = []
    while True:
        try:
            found.append(os.read(context, 1024).decode("utf-8", "replace")[2:].strip())
        except OSError:  # ENODATA: that was all
            return "; ".join(found)


def _call(number: int, *arguments: object) -> int:
    while True:
        result: int = _syscall(ctypes.c_long(number), *arguments)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
