"""What the disks below pools read and write, as the kernel counts it for everybody to see."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fspoolfs import mountpoint

#: Documentation/block/stat.rst: sectors of 512 bytes, whatever the device has.
_SECTOR: Final = 512
_SECTORS_READ: Final = 2
_SECTORS_WRITTEN: Final = 6
#: The major number of file systems that are on no single device.
_NO_DEVICE: Final = "0"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a device has read and written since it is there."""

    read: int
    written: int


def device_below(target: str) -> str | None:
    """The block device, as "major:minor", of what is mounted at or above `target`; `None` without one.

    Of a btrfs with several it is the one that it was mounted by. What is mounted at `target` is not touched.
    """
    found = mountpoint.mounted_below(target)
    if found is None:
        return None
    device, source = found
    if not device.startswith(f"{_NO_DEVICE}:"):
        return device
    if not source.startswith("/dev/"):
        return None
    try:
        number = os.stat(source).st_rdev
    except OSError:
        return None  # of another mount namespace
    return f"{os.major(number)}:{os.minor(number)}" if number else None


def traffic(device: str) -> Traffic | None:
    """What `device` has done; `None` where the kernel does not tell, or it is gone."""
    try:
        fields = Path(f"/sys/dev/block/{device}/stat").read_text().split()
        return Traffic(int(fields[_SECTORS_READ]) * _SECTOR, int(fields[_SECTORS_WRITTEN]) * _SECTOR)
    except (OSError, ValueError, IndexError):
        return None
