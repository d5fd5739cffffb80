"""The disks below a mounted file system, as block layer limits name them: whole, never a partition."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fspoolfs.errors import UnsupportedError
from fspoolfs.system import mounts

_SYSFS: Final = Path("/sys")
#: File systems that tell the kernel whose pages they write (SB_I_CGROUPWB). What others write later,
#: which is nearly all that is written, is nobody's.
_ATTRIBUTING: Final = ("ext2", "ext4", "xfs", "btrfs", "f2fs")


@dataclass(frozen=True, slots=True)
class Disk:
    """A whole block device: its "major:minor", its name in /sys/block, and whether it has a request queue.

    One that only hands on, as device-mapper's are, has none.
    """

    number: str
    name: str
    has_queue: bool


def below(path: str, device: int) -> list[Disk]:
    """The disks of the file system that `path` is on, whose st_dev is `device`.

    Raises `UnsupportedError` where it is on none of this host's.
    """
    mount = mounts.containing(mounts.mounts(), os.path.realpath(path))
    kind = mount.fs_type if mount is not None else "unknown"
    if mount is not None and kind == "btrfs":
        disks = _of_btrfs(mount.source)
    else:
        disks = [_whole(f"{os.major(device)}:{os.minor(device)}")] if os.major(device) else []
    if not disks:
        raise UnsupportedError(f"its file system, of type {kind}, is not on block devices of this host")
    if kind not in _ATTRIBUTING:
        raise UnsupportedError(
            f"the kernel does not attribute to anybody what a file system of type {kind} writes; "
            f"{', '.join(_ATTRIBUTING)} can be limited"
        )
    return disks


def _whole(number: str) -> Disk:
    place = Path(os.path.realpath(_SYSFS / "dev" / "block" / number))
    if (place / "partition").exists():
        place = place.parent
    return Disk((place / "dev").read_text().strip(), place.name, (place / "mq").is_dir())


def _of_btrfs(source: str) -> list[Disk]:
    """All devices of the file system that has `source` among them; each disk once."""
    number = os.stat(source).st_rdev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for filesystem in (_SYSFS / "fs" / "btrfs").glob("*-*/devices"):
        numbers = [(link / "dev").read_text().strip() for link in filesystem.iterdir() if link.exists()]
        if wanted in numbers:
            return list({disk.number: disk for disk in map(_whole, sorted(numbers))}.values())
    return []
