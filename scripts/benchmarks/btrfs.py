"""The bare ioctls of btrfs, to hold beside what fspoolfs takes: one function, one call.

Written down here again, and not taken from the program that is measured, so that the two can be
wrong only apart. Numbers and layouts come from include/uapi/linux/btrfs.h and btrfs_tree.h.
"""

from __future__ import annotations

import fcntl
import os
import struct

#: BTRFS_FIRST_FREE_OBJECTID: the inode number of a subvolume's own directory.
_SUBVOLUME_INODE = 256
_QUOTA_TREE = 8
_QUOTA_SIMPLE = 4
_INFO_KEY, _LIMIT_KEY = 242, 244
_LEVEL_SHIFT = 48
_LIMIT_MAX_RFER = 1
_SUBVOL_RDONLY = 1 << 1
_MAX_U64 = (1 << 64) - 1

_VOL_ARGS = struct.Struct("=qQQ32x4040s")  # fd, transid, flags, room for quotas, name
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_SEARCH_ARGS_SIZE = _SEARCH_KEY.size + 8
_SEARCH_HEADER = struct.Struct("=QQQII")  # transid, objectid, offset, type, len
_SEARCH_ROOM = 1 << 18


def _ioctl(direction: int, number: int, size: int) -> int:
    """_IOC() of include/uapi/asm-generic/ioctl.h with BTRFS_IOCTL_MAGIC."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


_WRITE, _READ = 1, 2
_TREE_SEARCH_V2 = _ioctl(_READ | _WRITE, 17, _SEARCH_ARGS_SIZE)
_INO_LOOKUP = _ioctl(_READ | _WRITE, 18, 4096)
_SNAP_CREATE_V2 = _ioctl(_WRITE, 23, _VOL_ARGS.size)
_SUBVOL_CREATE_V2 = _ioctl(_WRITE, 24, _VOL_ARGS.size)
_QUOTA_CTL = _ioctl(_READ | _WRITE, 40, 16)
_QGROUP_ASSIGN = _ioctl(_WRITE, 41, 24)
_QGROUP_CREATE = _ioctl(_WRITE, 42, 16)
_QGROUP_LIMIT = _ioctl(_READ, 43, 48)


def enable_simple_quotas(fd: int) -> None:
    """BTRFS_IOC_QUOTA_CTL; older btrfs programs than this one cannot ask for it."""
    fcntl.ioctl(fd, _QUOTA_CTL, bytearray(struct.pack("=QQ", _QUOTA_SIMPLE, 0)))


def create_subvolume(dir_fd: int, name: str) -> None:
    fcntl.ioctl(dir_fd, _SUBVOL_CREATE_V2, bytearray(_VOL_ARGS.pack(0, 0, 0, os.fsencode(name))))


def snapshot(source_fd: int, dir_fd: int, name: str) -> None:
    """A read-only one."""
    arguments = _VOL_ARGS.pack(source_fd, 0, _SUBVOL_RDONLY, os.fsencode(name))
    fcntl.ioctl(dir_fd, _SNAP_CREATE_V2, bytearray(arguments))


def subvolume_of(fd: int) -> int:
    """The id of a subvolume."""
    arguments = bytearray(4096)
    struct.pack_into("=QQ", arguments, 0, 0, _SUBVOLUME_INODE)
    fcntl.ioctl(fd, _INO_LOOKUP, arguments)
    found: int = struct.unpack_from("=Q", arguments)[0]
    return found


def group_id(level: int, number: int) -> int:
    return level << _LEVEL_SHIFT | number


def create_group(fd: int, group: int) -> None:
    fcntl.ioctl(fd, _QGROUP_CREATE, struct.pack("=QQ", 1, group))


def assign(fd: int, member: int, group: int) -> None:
    fcntl.ioctl(fd, _QGROUP_ASSIGN, struct.pack("=QQQ", 1, member, group))


def limit(fd: int, group: int, size: int) -> None:
    """Limit what is referred to."""
    fcntl.ioctl(fd, _QGROUP_LIMIT, struct.pack("=QQQ24x", group, _LIMIT_MAX_RFER, size))


def count_groups(fd: int) -> int:
    """Read the counters and limits of all groups in one pass, and no more of them than their number."""
    buffer = bytearray(_SEARCH_ARGS_SIZE + _SEARCH_ROOM)
    kind, offset, found = _INFO_KEY, 0, 0
    while True:
        _SEARCH_KEY.pack_into(
            buffer, 0, _QUOTA_TREE, 0, 0, offset, _MAX_U64, 0, _MAX_U64, kind, _LIMIT_KEY, 0xFFFFFFFF,
            0, 0, 0, 0, 0,
        )  # fmt: skip
        struct.pack_into("=Q", buffer, _SEARCH_KEY.size, _SEARCH_ROOM)
        fcntl.ioctl(fd, _TREE_SEARCH_V2, buffer)
        count = _SEARCH_KEY.unpack_from(buffer)[9]
        if not count:
            return found
        position = _SEARCH_ARGS_SIZE
        for _ in range(count):
            _, _, offset, kind, size = _SEARCH_HEADER.unpack_from(buffer, position)
            position += _SEARCH_HEADER.size + size
            found += kind == _INFO_KEY
        offset += 1
