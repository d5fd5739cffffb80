"""What pools on one volume share, whichever provider they have it from and by whichever path.

A logical volume by its names and a device by its number; a file, or what a loop device shows of one, by
its path without symbolic links. That does not change when the file is made or exchanged, which its inode
number does; only a file with several names goes by that.
"""

from __future__ import annotations

import os
import stat

from fspoolfs.system import loop, lvm


def of_logical(group: str, name: str) -> str:
    return f"volume:lvm {group}/{name}"


def of_path(path: str) -> str:
    """Of the device or file at an absolute path, where there may be none yet."""
    place = os.path.realpath(path)
    try:
        info = os.stat(place)
    except OSError:
        absent = lvm.volume_named(path) or lvm.volume_named(place)
        return of_logical(*absent) if absent is not None else f"volume:{place}"
    if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
        return f"volume:file {info.st_dev}:{info.st_ino}"
    return _of_device(info.st_rdev) if stat.S_ISBLK(info.st_mode) else f"volume:{place}"


def _of_device(number: int) -> str:
    known = os.major(number), os.minor(number)
    if (logical := lvm.volume_behind(known)) is not None:
        return of_logical(*logical)
    if (file := loop.whole_file_behind(known)) is not None:
        return of_path(file)
    return f"volume:device {known[0]}:{known[1]}"
