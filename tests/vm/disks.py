"""Disks of the guest: files in memory behind loop devices, the file systems on them, and power cuts.

Nothing here is undone; the guest is thrown away.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

from support.shell import run

_numbers = count(1)
_MOUNTS = Path("/mnt")

#: How each file system is made, and how large: mkfs.xfs(8) makes none below 300 MB.
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
_SIZE = {"ext4": 160 << 20, "xfs": 320 << 20, "btrfs": 160 << 20}

#: With what mount options each enforces limits; btrfs' quotas are switched on when it is made.
_ENFORCING = {"ext4": "prjquota", "xfs": "prjquota", "btrfs": "defaults"}

_SECTOR = 512


@cache
def _modules() -> None:
    """Load what nothing loads by itself where no udev runs."""
    run("modprobe", "-a", "loop", "ext4", "quota_v2", "xfs", "btrfs", "dm_flakey", "dm_thin_pool")


def blank(size: int) -> str:
    """A new disk of `size` bytes; its device."""
    _modules()
    image = Path(f"/dev/shm/disk{next(_numbers)}")
    with image.open("wb") as file:
        file.truncate(size)
    return run("losetup", "--find", "--show", image).stdout.strip()


def make(kind: str) -> str:
    """A new disk with a file system on it; its device."""
    device = blank(_SIZE[kind])
    run(*_MAKE[kind], device)
    return device


def mount(device: str, options: str) -> Path:
    place = _MOUNTS / f"m{next(_numbers)}"
    place.mkdir(parents=True)
    run("mount", "-o", options, device, place)
    return place


@dataclass
class Volume:
    """A mounted file system."""

    kind: str
    device: str
    place: Path
    _directories: count[int] = field(default_factory=lambda: count(1))

    def new_directory(self) -> Path:
        """An empty directory that no test has used yet."""
        directory = self.place / f"d{next(self._directories)}"
        directory.mkdir()
        return directory

    def remount(self, options: str) -> None:
        run("mount", "-o", f"remount,{options}", self.place)

    def unmount(self) -> None:
        run("umount", self.place)


def volume(kind: str, options: str) -> Volume:
    """A new one."""
    device = make(kind)
    return Volume(kind, device, mount(device, options))


class FailingDevice:
    """A disk whose power can be cut: what is written from then on is lost, though nobody is told.

    dm-flakey with `drop_writes` (Documentation/admin-guide/device-mapper/dm-flakey.rst) over `behind`,
    which has `size` bytes.
    """

    def __init__(self, behind: str, size: int) -> None:
        self._behind = behind
        self._name = f"failing{next(_numbers)}"
        self._sectors = size // _SECTOR
        self.path = f"/dev/mapper/{self._name}"
        self._dmsetup("create", self._name, "--table", self._table())
        self._dmsetup("mknodes", self._name)

    def cut(self) -> None:
        """From now on nothing reaches the disk. Neither is anything flushed first."""
        self._load(self._table("1 drop_writes"))

    @property
    def writes(self) -> int:
        """How many have come to their end so far."""
        number = os.stat(self.path).st_rdev
        text = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text()
        # Documentation/block/stat.rst
        return int(text.split()[4])

    def restore(self) -> None:
        """What is written reaches the disk again. What was cached of it goes with the last close before."""
        self._load(self._table())

    def _table(self, feature: str = "") -> str:
        # Up for 60 seconds and down for none, or the other way round.
        times = f"0 60 {feature}" if feature else "60 0"
        return f"0 {self._sectors} flakey {self._behind} 0 {times}"

    def _load(self, table: str) -> None:
        self._dmsetup("suspend", "--nolockfs", "--noflush", self._name)
        self._dmsetup("load", self._name, "--table", table)
        self._dmsetup("resume", self._name)

    def _dmsetup(self, *arguments: str) -> None:
        run("dmsetup", "--noudevsync", "--noudevrules", *arguments)


class FailingDisk:
    """A failing device with a file system, mounted at `place`, that enforces limits of items."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._device = FailingDevice(make(kind), _SIZE[kind])
        self.place = _MOUNTS / f"m{next(_numbers)}"
        self.place.mkdir(parents=True)
        self._mount()
        if kind == "btrfs":
            run("btrfs", "quota", "enable", self.place)

    def cut(self) -> None:
        self._device.cut()

    def return_after_cut(self) -> None:
        """Throw away what only memory has, and mount what is on the disk."""
        run("umount", "--recursive", self.place)
        self._device.restore()
        self._mount()

    def _mount(self) -> None:
        run("mount", "-o", _ENFORCING[self._kind], self._device.path, self.place)


def space(path: Path) -> int:
    """What df(1) shows as the size of the file system at `path`, in bytes."""
    numbers = os.statvfs(path)
    return numbers.f_blocks * numbers.f_frsize
