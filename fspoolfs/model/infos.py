"""Infos: what was observed of pools and items. Sizes are bytes, times seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceInfo:
    """The numbers of a file system, in bytes, as statvfs(3) has them for an ordinary user."""

    capacity: int
    allocation: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """What a pool's volume takes of the storage that it lies on, in bytes.

    `store` is what volumes on one storage share, and a person's word for it. `size` is how large the
    volume is, `allocation` what it takes there so far, `available` what is free there for all of them.
    """

    store: str
    size: int
    allocation: int
    available: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageInfo:
    """What an item holds: bytes on disk, and files and directories, each inode once.

    `inodes` is `None` where the storage counts bytes alone.
    """

    allocation: int
    inodes: int | None


class FileInfo(NamedTuple):
    """What lstat(2) tells of one entry below a pool's root; a tuple, since there are many."""

    mode: int
    owner: int
    group: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


#: The place below a pool's root of which a mount does not tell that it shows it: no path is this.
UNTOLD = "\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountUse:
    """One mount, in any mount namespace, that shows something of a pool.

    `inside` is the place below the pool's root that is mounted ("web", "web/logs", "" for the
    root itself, `UNTOLD` where the file system does not tell), `target` the mount point as `pid` sees it.
    """

    pid: int
    command: str
    inside: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One thing that a storage can do, or why it cannot: `reason` is empty where it can.

    `note` says what a person should know about what it can do, such as "by copying".
    """

    name: str
    reason: str = ""
    note: str = ""

    @property
    def usable(self) -> bool:
        return not self.reason
