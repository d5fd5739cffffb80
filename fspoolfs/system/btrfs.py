"""The ioctls of btrfs for subvolumes, and searching its trees. One function, one call.

Numbers and layouts come from include/uapi/linux/btrfs.h and btrfs_tree.h, little endian on disk as
in the answers. Descriptors say which file system is meant; nothing here resolves a path, knows what
a subvolume is used for, or looks whether the caller may do it: the kernel does. Most calls need
CAP_SYS_ADMIN. Failures are `OSError`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

#: f_type of statfs(2), include/uapi/linux/magic.h.
MAGIC = 0x9123683E
#: BTRFS_FIRST_FREE_OBJECTID: the inode number of every subvolume's own directory.
SUBVOLUME_INODE = 256
#: BTRFS_FS_TREE_OBJECTID: the subvolume that mkfs makes; those made later count from 256.
TOP_LEVEL = 5

_ROOT_TREE = 1
_ROOT_REF_KEY = 156
_MAX_U64 = (1 << 64) - 1

_NAME_SIZE = 4040
_VOL_ARGS_V2 = struct.Struct("=qQQ32x")  # fd, transid, flags, room for quotas; then the name or an id
_ARGS_SIZE = _VOL_ARGS_V2.size + _NAME_SIZE
_SUBVOL_RDONLY = 1 << 1
_SUBVOL_SPEC_BY_ID = 1 << 4

_INO_LOOKUP_ARGS = struct.Struct("=QQ")  # treeid, objectid; then the path
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_SEARCH_ARGS_SIZE = _SEARCH_KEY.size + 8
_SEARCH_HEADER = struct.Struct("=QQQII")  # transid, objectid, offset, type, len
_ROOT_REF = struct.Struct("<QQH")  # dirid, sequence, name_len; then the name

_WRITE, _READ = 1, 2


def ioctl_number(direction: int, number: int, size: int) -> int:
    """_IOC() of include/uapi/asm-generic/ioctl.h with BTRFS_IOCTL_MAGIC."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


_TREE_SEARCH_V2 = ioctl_number(_READ | _WRITE, 17, _SEARCH_ARGS_SIZE)
_INO_LOOKUP = ioctl_number(_READ | _WRITE, 18, 4096)
_SNAP_CREATE_V2 = ioctl_number(_WRITE, 23, _ARGS_SIZE)
_SUBVOL_CREATE_V2 = ioctl_number(_WRITE, 24, _ARGS_SIZE)
_SUBVOL_GETFLAGS = ioctl_number(_READ, 25, 8)
_SUBVOL_SETFLAGS = ioctl_number(_WRITE, 26, 8)
_SNAP_DESTROY_V2 = ioctl_number(_WRITE, 63, _ARGS_SIZE)

#: FILEID_BTRFS_WITHOUT_PARENT, include/linux/exportfs.h.
_HANDLE_TYPE = 0x4D
_FILE_ID = struct.Struct("=QQI")  # objectid, root_objectid, generation (0: any)


class _FileHandle(ctypes.Structure):
    """struct file_handle, include/linux/fs.h, with what btrfs puts into it."""

    _fields_ = (
        ("size", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("id", ctypes.c_ubyte * _FILE_ID.size),
    )


_open_by_handle_at = ctypes.CDLL(None, use_errno=True).open_by_handle_at
_open_by_handle_at.restype = ctypes.c_int
_open_by_handle_at.argtypes = (ctypes.c_int, ctypes.POINTER(_FileHandle), ctypes.c_int)


class Reference(NamedTuple):
    """Where a subvolume lies: as `name` in the directory with inode `directory` of subvolume `parent`."""

    parent: int
    child: int
    directory: int
    name: bytes


class Key(NamedTuple):
    """What an item of a tree is found by; keys are ordered like these tuples."""

    objectid: int
    type: int
    offset: int


def _arguments(name: str = "", *, fd: int = 0, flags: int = 0) -> bytearray:
    """A struct btrfs_ioctl_vol_args_v2 with a name."""
    encoded = os.fsencode(name)
    if b"\0" in encoded:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    if len(encoded) >= _NAME_SIZE:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    arguments = bytearray(_ARGS_SIZE)
    _VOL_ARGS_V2.pack_into(arguments, 0, fd, 0, flags)
    arguments[_VOL_ARGS_V2.size : _VOL_ARGS_V2.size + len(encoded)] = encoded
    return arguments


def create_subvolume(dir_fd: int, name: str) -> None:
    """BTRFS_IOC_SUBVOL_CREATE_V2: a new subvolume, of mode 0777 less the umask."""
    fcntl.ioctl(dir_fd, _SUBVOL_CREATE_V2, _arguments(name))


def snapshot(source_fd: int, dir_fd: int, name: str, *, read_only: bool) -> None:
    """BTRFS_IOC_SNAP_CREATE_V2: durable when it returns, since it commits a transaction."""
    flags = _SUBVOL_RDONLY if read_only else 0
    fcntl.ioctl(dir_fd, _SNAP_CREATE_V2, _arguments(name, fd=source_fd, flags=flags))


def destroy(fd: int, subvolume: int) -> None:
    """BTRFS_IOC_SNAP_DESTROY_V2 by id (since 5.7): also one that is read-only or out of this mount.

    ENOTEMPTY while it holds subvolumes, EROFS where the one that holds it is read-only, ENOENT when
    it is gone.
    """
    arguments = _arguments(flags=_SUBVOL_SPEC_BY_ID)
    struct.pack_into("=Q", arguments, _VOL_ARGS_V2.size, subvolume)
    fcntl.ioctl(fd, _SNAP_DESTROY_V2, arguments)


def is_read_only(fd: int) -> bool:
    """BTRFS_IOC_SUBVOL_GETFLAGS; EINVAL for what is no subvolume."""
    flags = bytearray(8)
    fcntl.ioctl(fd, _SUBVOL_GETFLAGS, flags)
    return bool(struct.unpack("=Q", flags)[0] & _SUBVOL_RDONLY)


def set_read_only(fd: int, read_only: bool) -> None:
    """BTRFS_IOC_SUBVOL_SETFLAGS; EINVAL for what is no subvolume."""
    fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", _SUBVOL_RDONLY if read_only else 0))


def subvolume_of(fd: int) -> int:
    """BTRFS_IOC_INO_LOOKUP: the id of the subvolume that `fd` is or lies in; anybody may ask."""
    arguments = bytearray(4096)
    _INO_LOOKUP_ARGS.pack_into(arguments, 0, 0, SUBVOLUME_INODE)
    fcntl.ioctl(fd, _INO_LOOKUP, arguments)
    found: int = _INO_LOOKUP_ARGS.unpack_from(arguments)[0]
    return found


def is_subvolume(fd: int) -> bool:
    """Whether `fd`, a directory on btrfs, is a subvolume's own."""
    return os.fstat(fd).st_ino == SUBVOLUME_INODE


def open_subvolume(fd: int, subvolume: int) -> int:
    """open_by_handle_at(2): a subvolume by its id, wherever it lies; ESTALE or ENOENT when it is gone."""
    handle = _FileHandle(_FILE_ID.size, _HANDLE_TYPE)
    _FILE_ID.pack_into(handle.id, 0, SUBVOLUME_INODE, subvolume, 0)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    while True:
        found: int = _open_by_handle_at(fd, ctypes.byref(handle), flags)
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), f"subvolume {subvolume}")


def search(
    fd: int, tree: int, first: Key, last: Key, *, room: int = 1 << 12
) -> Iterator[tuple[Key, memoryview]]:
    """BTRFS_IOC_TREE_SEARCH_V2: the items of `tree` from `first` to `last`, in order.

    Every key between them counts, whatever its type. An item's bytes are good until the next one
    is asked for. `room` is how many bytes the kernel fills at once, more than any item has. ENOENT
    when there is no such tree.
    """
    buffer = bytearray(_SEARCH_ARGS_SIZE + room)
    view = memoryview(buffer)
    here = first
    while here <= last:
        _SEARCH_KEY.pack_into(
            buffer, 0, tree, here.objectid, last.objectid, here.offset, last.offset, 0, _MAX_U64,
            here.type, last.type, 0xFFFFFFFF, 0, 0, 0, 0, 0,
        )  # fmt: skip
        struct.pack_into("=Q", buffer, _SEARCH_KEY.size, room)
        fcntl.ioctl(fd, _TREE_SEARCH_V2, buffer)
        count = _SEARCH_KEY.unpack_from(buffer)[9]
        if not count:
            return
        position = _SEARCH_ARGS_SIZE
        for _ in range(count):
            _, objectid, offset, kind, size = _SEARCH_HEADER.unpack_from(buffer, position)
            position += _SEARCH_HEADER.size
            here = Key(objectid, kind, offset)
            yield here, view[position : position + size]
            position += size
        here = _following(here)


def _following(key: Key) -> Key:
    if key.offset < _MAX_U64:
        return key._replace(offset=key.offset + 1)
    if key.type < 255:
        return Key(key.objectid, key.type + 1, 0)
    return Key(key.objectid + 1, 0, 0)


def children(fd: int, parent: int) -> list[Reference]:
    """The subvolumes that lie in the subvolume `parent`, but for those in these."""
    first, last = Key(parent, _ROOT_REF_KEY, 0), Key(parent, _ROOT_REF_KEY, _MAX_U64)
    return [_reference(key, data) for key, data in search(fd, _ROOT_TREE, first, last)]


def references(fd: int) -> Iterator[Reference]:
    """Where each subvolume of the file system lies, in one pass."""
    first, last = Key(TOP_LEVEL, _ROOT_REF_KEY, 0), Key(_MAX_U64 - 256, _ROOT_REF_KEY, _MAX_U64)
    for key, data in search(fd, _ROOT_TREE, first, last, room=1 << 18):
        if key.type == _ROOT_REF_KEY:
            yield _reference(key, data)


def _reference(key: Key, data: memoryview) -> Reference:
    directory, _, size = _ROOT_REF.unpack_from(data)
    name = bytes(data[_ROOT_REF.size : _ROOT_REF.size + size])
    return Reference(key.objectid, key.offset, directory, name)
