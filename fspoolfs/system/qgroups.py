"""The ioctls of btrfs for quota groups: their state, limits, members and what they count.

Numbers and layouts come from include/uapi/linux/btrfs.h and btrfs_tree.h. What is read comes from
the quota tree, whose counters the kernel writes at each commit: what is not on disk yet is not
counted. Nothing here switches quotas on or off, starts a rescan, or knows what a group is for. All
calls need CAP_SYS_ADMIN. Failures are `OSError`.
"""

from __future__ import annotations

import enum
import fcntl
import struct
from collections.abc import Iterator
from typing import NamedTuple

from fspoolfs.system import btrfs
from fspoolfs.system.btrfs import Key, ioctl_number

_QUOTA_TREE = 8
_STATUS_KEY, _INFO_KEY, _LIMIT_KEY, _RELATION_KEY = 240, 242, 244, 246
_MAX_U64 = (1 << 64) - 1

_STATUS_ITEM = struct.Struct("<QQQ")  # version, generation, flags; then how far a rescan is
_FLAG_RESCAN, _FLAG_INCONSISTENT, _FLAG_SIMPLE = 1 << 1, 1 << 2, 1 << 3
_INFO_ITEM = struct.Struct("<QQ")  # generation, rfer; then others
_LIMIT_ITEM = struct.Struct("<QQ")  # flags, max_rfer; then others
_LIMIT_MAX_RFER = 1 << 0

_WRITE, _READ = 1, 2
_ASSIGN_ARGS = struct.Struct("=QQQ")  # assign, src, dst
_CREATE_ARGS = struct.Struct("=QQ")  # create, qgroupid
_LIMIT_ARGS = struct.Struct("=QQQ24x")  # qgroupid, flags, max_rfer; other limits
_QGROUP_ASSIGN = ioctl_number(_WRITE, 41, _ASSIGN_ARGS.size)
_QGROUP_CREATE = ioctl_number(_WRITE, 42, _CREATE_ARGS.size)
_QGROUP_LIMIT = ioctl_number(_READ, 43, _LIMIT_ARGS.size)

#: BTRFS_QGROUP_LEVEL_SHIFT
_LEVEL_SHIFT = 48


class Mode(enum.Enum):
    """How a file system counts."""

    OFF = "off"
    #: Every reference to an extent counts, in each subvolume that has one ("qgroups").
    FULL = "full"
    #: An extent counts once, where it was written ("squota", since 6.7).
    SIMPLE = "simple"


class Status(NamedTuple):
    """The state of quotas, as of the last commit."""

    mode: Mode
    #: The counters are wrong until a rescan.
    inconsistent: bool = False
    #: A rescan is counting.
    rescanning: bool = False


class Group(NamedTuple):
    """What a group counts (rfer), and its limit of that."""

    referenced: int
    limit: int | None


def group_id(level: int, number: int) -> int:
    """The id that is written LEVEL/NUMBER; those of level 0 are subvolumes' ids."""
    return level << _LEVEL_SHIFT | number


def level_of(group: int) -> int:
    return group >> _LEVEL_SHIFT


def number_of(group: int) -> int:
    return group & ((1 << _LEVEL_SHIFT) - 1)


def status(fd: int) -> Status:
    """The quota tree's QGROUP_STATUS item; without the tree quotas are off."""
    key = Key(0, _STATUS_KEY, 0)
    try:
        for _, data in btrfs.search(fd, _QUOTA_TREE, key, key, room=1 << 9):
            flags = _STATUS_ITEM.unpack_from(data)[2]
            mode = Mode.SIMPLE if flags & _FLAG_SIMPLE else Mode.FULL
            return Status(mode, bool(flags & _FLAG_INCONSISTENT), bool(flags & _FLAG_RESCAN))
    except FileNotFoundError:
        pass
    return Status(Mode.OFF)


def create(fd: int, group: int) -> None:
    """BTRFS_IOC_QGROUP_CREATE; EEXIST when it is there."""
    fcntl.ioctl(fd, _QGROUP_CREATE, _CREATE_ARGS.pack(1, group))


def remove(fd: int, group: int) -> None:
    """BTRFS_IOC_QGROUP_CREATE to remove; EBUSY while it has members, or a subvolume that still counts."""
    fcntl.ioctl(fd, _QGROUP_CREATE, _CREATE_ARGS.pack(0, group))


def assign(fd: int, member: int, group: int) -> None:
    """BTRFS_IOC_QGROUP_ASSIGN: what `member` counts counts in `group` too; EEXIST when it does."""
    fcntl.ioctl(fd, _QGROUP_ASSIGN, _ASSIGN_ARGS.pack(1, member, group))


def release(fd: int, member: int, group: int) -> None:
    """BTRFS_IOC_QGROUP_ASSIGN to undo it; ENOENT when it is no member."""
    fcntl.ioctl(fd, _QGROUP_ASSIGN, _ASSIGN_ARGS.pack(0, member, group))


def limit(fd: int, group: int, size: int | None) -> None:
    """BTRFS_IOC_QGROUP_LIMIT of max_rfer; `None` lifts it."""
    wanted = _MAX_U64 if size is None else size  # all ones clear a limit
    fcntl.ioctl(fd, _QGROUP_LIMIT, _LIMIT_ARGS.pack(group, _LIMIT_MAX_RFER, wanted))


def read(fd: int, group: int) -> Group | None:
    """What one group counts, and its limit; `None` when there is no such group."""
    referenced = _item(fd, Key(0, _INFO_KEY, group), _INFO_ITEM)
    if referenced is None:
        return None
    limits = _item(fd, Key(0, _LIMIT_KEY, group), _LIMIT_ITEM)
    return Group(referenced[1], _max_rfer(*limits) if limits else None)


def _item(fd: int, key: Key, layout: struct.Struct) -> tuple[int, ...] | None:
    for _, data in btrfs.search(fd, _QUOTA_TREE, key, key, room=1 << 9):
        return layout.unpack_from(data)
    return None


def _max_rfer(flags: int, size: int) -> int | None:
    return size if flags & _LIMIT_MAX_RFER else None


def read_all(fd: int) -> dict[int, Group]:
    """Every group, in one pass."""
    found: dict[int, Group] = {}
    first, last = Key(0, _INFO_KEY, 0), Key(0, _LIMIT_KEY, _MAX_U64)
    for key, data in btrfs.search(fd, _QUOTA_TREE, first, last, room=1 << 18):
        if key.type == _INFO_KEY:
            found[key.offset] = Group(_INFO_ITEM.unpack_from(data)[1], None)
        elif key.type == _LIMIT_KEY and key.offset in found:
            limited = _max_rfer(*_LIMIT_ITEM.unpack_from(data))
            if limited is not None:
                found[key.offset] = found[key.offset]._replace(limit=limited)
    return found


def members(fd: int, group: int, *, after: int = 0) -> Iterator[int]:
    """The groups that are counted in `group`, in order, from that following `after` on."""
    first, last = Key(group, _RELATION_KEY, after + 1), Key(group, _RELATION_KEY, group - 1)
    for key, _ in btrfs.search(fd, _QUOTA_TREE, first, last):
        yield key.offset
