"""Volume groups of LVM in the guest, on disks whose power can be cut. No udev runs there.

Nothing here is undone; the guest is thrown away.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from support.machine import is_mounted
from support.shell import run
from vm.disks import FailingDevice, blank

#: The guest's own settings, over those of the package: LVM makes its device nodes itself, looks at
#: the failing devices alone, not at the disks behind them, and lets no program check thin pools.
_SETTINGS = """
activation {
    udev_sync = 0
    udev_rules = 0
    monitoring = 0
}
devices {
    obtain_device_list_from_udev = 0
    external_device_info_source = "none"
    use_devicesfile = 0
    filter = [ "a|^/dev/mapper/failing|", "r|.*|" ]
}
global {
    thin_check_executable = ""
}
backup {
    backup = 0
    archive = 0
}
"""


@cache
def _settings() -> None:
    Path("/etc/lvm/lvmlocal.conf").write_text(_SETTINGS)


class Group:
    """The volume group `name` on a new disk of `size` bytes."""

    def __init__(self, name: str, size: int) -> None:
        _settings()
        self.name = name
        self._disk = FailingDevice(blank(size), size)
        run("vgcreate", "--quiet", name, self._disk.path)

    def cut(self) -> None:
        self._disk.cut()

    def cut_after_a_write(self, is_working: Callable[[], bool]) -> None:
        """The same when somebody who is at work has begun to write, or has ended without."""
        before = self._disk.writes
        while self._disk.writes == before and is_working():
            pass
        self._disk.cut()

    def return_after_cut(self, mounted: Iterable[Path] = ()) -> None:
        """Throw away what only memory has of all its volumes, after what of them is at `mounted`.

        Not by LVM, which knows only those that are on the disk.
        """
        for place in mounted:
            if is_mounted(place):
                run("umount", "--recursive", place)
        prefix = self.name.replace("-", "--") + "-"
        names = [line.split()[0] for line in run("dmsetup", "ls").stdout.splitlines()]
        for name in names:
            if name.startswith(prefix):
                run("dmsetup", "remove", "--noudevsync", "--noudevrules", name)
        shutil.rmtree(Path("/dev", self.name), ignore_errors=True)
        self._disk.restore()

    def make_thin(self, name: str, size: int, *, pool_size: int) -> None:
        """A thin volume of `size` bytes in a new thin pool `pool_of_NAME`, made by hand."""
        pool = f"pool_of_{name}"
        run("lvcreate", "--yes", "--type", "thin-pool", "--size", f"{pool_size}b", "--name", pool, self.name)
        thin = ("--virtualsize", f"{size}b", "--thinpool", pool)
        run("lvcreate", "--yes", *thin, "--name", name, self.name)

    def clear(self) -> None:
        """Remove all its volumes."""
        run("lvremove", "--yes", "--force", self.name)

    def volumes(self) -> dict[str, int]:
        """The size of each volume by name, in bytes."""
        rows = run(
            "lvs", "--noheadings", "--units", "b", "--nosuffix", "--options", "lv_name,lv_size", self.name
        ).stdout.split()
        return dict(zip(rows[::2], map(int, rows[1::2]), strict=True))
