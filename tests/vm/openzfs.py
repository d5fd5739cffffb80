"""What tests over OpenZFS share: daemons on a disk of their own, and a zpool that many tests have in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import close_all
from support.zfs import _format_is_usable, usable_zfs, zfs_fuse
from vm.disks import Volume, volume
from vm.preloaded import PreloadedDaemon

__all__ = ["_format_is_usable", "daemon", "disk_of_daemons", "make_daemon", "usable_zfs", "zfs_fuse"]

#: Seconds: importing a zpool takes its time there, and on a busy machine a minute and more.
_GRACE, LIMIT = 300, 900

#: Makes and starts a daemon with a directory of its own.
MakeDaemon = Callable[[], PreloadedDaemon]


@pytest.fixture(scope="module")
def disk_of_daemons() -> Volume:
    """What images lie on keeps extended attributes."""
    return volume("ext4", "")


@pytest.fixture
def make_daemon(disk_of_daemons: Volume) -> Iterator[MakeDaemon]:
    made: list[PreloadedDaemon] = []

    def make() -> PreloadedDaemon:
        base: Path = disk_of_daemons.new_directory()
        made.append(PreloadedDaemon(base, grace=_GRACE))
        made[-1].start()
        return made[-1]

    try:
        yield make
    finally:
        close_all(list(made))


@pytest.fixture
def daemon(make_daemon: MakeDaemon) -> PreloadedDaemon:
    return make_daemon()
