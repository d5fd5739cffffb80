"""Pytest plugin: file systems of many kinds, each in a small image, made once for the whole run.

A kind is made when the first test asks for it; each test gets a new directory of its own there.
Everything is taken down at the end of the run, and what is not fails the run (`support.leaks`).
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.shell import run

#: BTRFS_IOC_QUOTA_CTL, include/uapi/linux/btrfs.h; `btrfs quota enable --simple` is newer than it.
_QUOTA_CTL = 3 << 30 | 16 << 16 | 0x94 << 8 | 40
_QUOTA_FULL, _QUOTA_SIMPLE = 1, 4

#: Bytes of an image, of which only what is written takes space; xfs needs 300 MiB.
_SIZE = 512 << 20


@dataclass(frozen=True, slots=True)
class Kind:
    """How a file system is made: the command before the image's path, mount options, btrfs' quotas."""

    make: tuple[str, ...]
    options: str = "loop"
    quota: int = 0

    @property
    def programs(self) -> tuple[str, ...]:
        return (*self.make[:1], "mount", "umount")


_MKFS_BTRFS = ("mkfs.btrfs", "--quiet", "--metadata", "single")
#: A commit every second: deleted subvolumes are cleaned up soon.
_BTRFS = "loop,commit=1"

KINDS = {
    "btrfs-plain": Kind(_MKFS_BTRFS, _BTRFS),
    "btrfs-qgroup": Kind(_MKFS_BTRFS, _BTRFS, _QUOTA_FULL),
    "btrfs-simple": Kind(_MKFS_BTRFS, _BTRFS, _QUOTA_SIMPLE),
    "ext4": Kind(("mkfs.ext4", "-q", "-F")),
    "xfs": Kind(("mkfs.xfs", "-q")),
    "overlay": Kind(()),
}


def marks(kind: str) -> list[pytest.MarkDecorator]:
    """What a test of this kind needs of the machine."""
    return [pytest.mark.root, pytest.mark.program(*KINDS[kind].programs)]


class Volumes:
    """The file systems of one run."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._mounted: dict[str, Path] = {}

    def directory(self, kind: str) -> Path:
        """A new, empty directory on a file system of this kind."""
        if kind not in self._mounted:
            self._mounted[kind] = self._mount(kind)
        directory = tempfile.mkdtemp(dir=self._mounted[kind], prefix="test-")
        os.chmod(directory, 0o755)  # users have to get through
        return Path(directory)

    def _mount(self, name: str) -> Path:
        kind = KINDS[name]
        # At once, so that what fails half-way is taken down too.
        place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-")))
        place.chmod(0o755)
        point = place / "mnt"
        point.mkdir()
        if not kind.make:
            return self._mount_overlay(place, point)
        fill_image(kind, place / "image")
        mount_image(kind, place / "image", point)
        self._stack.callback(run, "umount", point)
        return point

    def _mount_overlay(self, place: Path, point: Path) -> Path:
        memory = place / "tmpfs"
        memory.mkdir()
        run("mount", "-t", "tmpfs", "fspoolfs-test", memory)
        self._stack.callback(run, "umount", memory)
        for name in ("lower", "upper", "work"):
            (memory / name).mkdir()
        options = ",".join(f"{name}dir={memory}/{name}" for name in ("lower", "upper", "work"))
        run("mount", "-t", "overlay", "-o", options, "fspoolfs-test", point)
        self._stack.callback(run, "umount", point)
        return point


def fill_image(kind: Kind, image: Path) -> None:
    """Make a sparse file with a new file system of `kind`."""
    with image.open("wb") as file:
        file.truncate(_SIZE)
    run(*kind.make, image)


def mount_image(kind: Kind, image: Path, point: Path, *, is_new: bool = True) -> None:
    """Mount it as its kind wants; a new one gets its quotas switched on."""
    run("mount", "-o", kind.options, image, point)
    if kind.quota and is_new:
        _switch_on(point, kind.quota)


def _switch_on(point: Path, how: int) -> None:
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _QUOTA_CTL, bytearray(struct.pack("=QQ", how, 0)))
    finally:
        os.close(fd)


@pytest.fixture(scope="session")
def volumes() -> Iterator[Volumes]:
    with ExitStack() as stack:
        yield Volumes(stack)
