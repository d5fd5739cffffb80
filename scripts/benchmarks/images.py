"""File systems made for one run, each in a sparse image on a loop device.

A fresh file system measures the same way every time: an ext4 from which many inodes were removed in
the last minutes makes every creation slow, and most machines have no btrfs or xfs at all. A loop
device goes by itself when its mount goes; `detach_below` is for those that somebody else attached.
Nothing here touches a device or an image that it was not given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import btrfs
from benchmarks.errors import BenchError

#: Bytes of an image, of which only what was ever written takes space.
_SIZE = 24 << 30
#: Seconds in which the kernel lets go of a loop device whose file system was just unmounted.
_PATIENCE = 10.0
_LOOP_DEVICES = Path("/sys/block")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a file system is made: the command before the image's path; `simple_quota` is for btrfs."""

    make: tuple[str, ...]
    simple_quota: bool = False


# All inode tables at once, which costs nothing in a sparse image: else the kernel goes on writing them.
EXT4 = Kind(("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"))
XFS = Kind(("mkfs.xfs", "-q"))
BTRFS = Kind(("mkfs.btrfs", "--quiet"), simple_quota=True)


def mount_image(image: Path, point: Path, kind: Kind) -> None:
    """Make a file system in the new file `image` and mount it at the new directory `point`.

    Raises `BenchError` where this machine cannot.
    """
    program = kind.make[0]
    if shutil.which(program) is None:
        raise BenchError(f"{program} is missing; install e2fsprogs, xfsprogs and btrfs-progs")
    with image.open("xb") as file:
        file.truncate(_SIZE)
    _run(*kind.make, image)
    point.mkdir()
    _run("mount", "-o", "loop", image, point)
    if kind.simple_quota:
        fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            btrfs.enable_simple_quotas(fd)
        except OSError as error:
            raise BenchError(f"no simple quotas, which Linux has since 6.7: {error.strerror}") from error
        finally:
            os.close(fd)


def _run(*command: str | Path) -> None:
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise BenchError(f"{' '.join(map(str, command))}: {answer.stderr.strip()}")


def detach_below(directory: Path) -> None:
    """Return when no loop device has a file below `directory`; what does not go by itself is detached."""
    limit = time.monotonic() + _PATIENCE
    while attached := _attached_below(directory):
        if time.monotonic() > limit:
            for device in attached:
                subprocess.run(["losetup", "--detach", f"/dev/{device}"], check=True)
            return
        time.sleep(0.05)


def _attached_below(directory: Path) -> list[str]:
    found = []
    for device in _LOOP_DEVICES.glob("loop*"):
        try:
            file = (device / "loop" / "backing_file").read_text()
        except OSError:
            continue  # nothing is attached to it, or not any more
        if directory in Path(file.removesuffix("\n")).parents:
            found.append(device.name)
    return found
