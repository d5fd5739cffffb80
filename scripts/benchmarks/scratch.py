"""The one place that a run works in; it and all that is mounted in it go at the end.

By default that is a fresh ext4 in an image, else a real directory on a disk. Other file systems are
made in images when a measurement asks for them.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.images import EXT4, Kind, detach_below, mount_image
from benchmarks.mounts import mount_of, unmount, unmount_below

#: File systems on which a synced write costs nothing, so that nothing durable can be measured.
_NO_DISK = frozenset({"tmpfs", "ramfs", "rootfs", "overlay"})
#: Bytes that all images of a whole run may come to.
_ROOM = 16 << 30


@dataclass(frozen=True, slots=True)
class Scratch:
    """Hands out fresh directories below `path`, and fresh file systems whose images lie in `images`."""

    path: Path
    images: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def directory(self, name: str) -> Path:
        """A new empty directory whose name begins with `name`."""
        made = self.path / f"{name}-{next(self._numbers)}"
        made.mkdir()
        return made

    def beside_images(self, name: str) -> Path:
        """The same where the images lie, for who makes one of his own."""
        made = self.images / f"{name}-{next(self._numbers)}"
        made.mkdir()
        return made

    @contextmanager
    def filesystem(self, kind: Kind) -> Iterator[Path]:
        """A new empty file system; its image goes with it."""
        point = self.images / f"{kind.make[0]}-{next(self._numbers)}"
        image = point.with_suffix(".image")
        try:
            mount_image(image, point, kind)
            yield point
        finally:
            unmount(point)
            image.unlink(missing_ok=True)


@contextmanager
def scratch(directory: Path | None, images: Path) -> Iterator[Scratch]:
    """A place to work in: below `directory`, or in a fresh ext4. Images lie below `images`.

    Raises `BenchError` where either cannot be.
    """
    with ExitStack() as stack:
        _check_room(images)
        place = stack.enter_context(_fresh(images))
        if directory is None:
            work = place / "work"
            mount_image(place / "work.image", work, EXT4)
        else:
            work = stack.enter_context(_fresh(directory))
        work.chmod(0o711)
        yield Scratch(work, place)


def _check_room(images: Path) -> None:
    if not images.is_dir():
        raise BenchError(f"{images} is no directory")
    free = shutil.disk_usage(images).free
    if free < _ROOM:
        raise BenchError(
            f"{images} has {free >> 30} GiB left, and images may come to {_ROOM >> 30}; name another place "
            "with --images"
        )


@contextmanager
def _fresh(parent: Path) -> Iterator[Path]:
    """A directory with a random name in `parent`, which has to be on a disk."""
    parent = parent.resolve()
    if not parent.is_dir():
        raise BenchError(f"{parent} is no directory")
    kind = mount_of(parent).kind
    if kind in _NO_DISK:
        raise BenchError(
            f"{parent} is on {kind}, which has no disk to sync; name others with --dir and --images"
        )
    path = parent / f"fspoolfs-bench-{secrets.token_hex(8)}"
    path.mkdir(mode=0o711)
    try:
        yield path
    finally:
        unmount_below(path)
        detach_below(path)
        shutil.rmtree(path)
