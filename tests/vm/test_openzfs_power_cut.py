"""Power cuts below a zpool of OpenZFS, right after an operation has returned success.

What the zpool holds in memory then is lost, what it had on its disk is imported again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import request
from support import zfs
from support.machine import is_mounted, mounts
from support.shell import run
from vm.disks import FailingDevice, blank, volume
from vm.openzfs import LIMIT, usable_zfs  # noqa: F401
from vm.operations import OPERATIONS, Operation
from vm.test_power_cut import Place, loses_what_was_not_synced, survives

#: A zpool takes seconds for each step there, and many more where others work too.
pytestmark = [pytest.mark.usefixtures("usable_zfs"), pytest.mark.timeout(LIMIT)]

_SIZE = 256 << 20


class Zpool:
    """The disk of a pool, in the place of the one that all of a daemon is on."""

    def __init__(self) -> None:
        self.device = FailingDevice(blank(_SIZE), _SIZE)
        self.place = volume("ext4", "").place

    def cut(self) -> None:
        self.device.cut()

    def return_after_cut(self) -> None:
        # All that is written while it goes is lost, as what was in memory.
        for mount in sorted(mounts(), key=lambda mount: len(mount.point), reverse=True):
            if mount.fstype in zfs.TYPES and is_mounted(Path(mount.point)):
                run("umount", mount.point)
        for name in run("zpool", "list", "-H", "-o", "name").stdout.split():
            run("zpool", "export", "-f", name)
        self.device.restore()


class PlaceOnZfs(Place):
    def __init__(self, base: Path) -> None:
        super().__init__(Zpool(), base)

    def define(self) -> None:
        assert isinstance(self.disk, Zpool)
        request(
            self.daemon.mount / "define",
            "<fspool type='volume'><name>tank</name>"
            f"<source><device path='{self.disk.device.path}'/><format type='zfs'/></source></fspool>",
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, usable_zfs: None) -> Iterator[Place]:  # noqa: F811
    made = PlaceOnZfs(tmp_path_factory.mktemp("power"))
    yield made
    made.daemon.close()


@pytest.mark.parametrize(
    "operation",
    [one for one in OPERATIONS if not one.name.startswith("pool ")],
    ids=lambda operation: operation.name,
)
def test_what_returned_success_is_there_after_a_power_cut(place: Place, operation: Operation) -> None:
    survives(place, operation)


def test_power_is_really_cut(place: Place) -> None:
    loses_what_was_not_synced(place)
