"""Volume groups of LVM in the guest, on disks whose power can be cut. No udev runs there.

Nothing here is undone; the guest is thrown away.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from support.shell import run
from vm.disks import FailingDevice, blank

#: The guest's own settings, over those of the package: LVM makes its device nodes itself, and looks at
#: the failing devices alone, not at the disks behind them.
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

    def return_after_cut(self) -> None:
        """Throw away what only memory has of all its volumes, none of which is in use."""
        run("vgchange", "--activate", "n", self.name)
        self._disk.restore()

    def clear(self) -> None:
        """Remove all its volumes."""
        run("lvremove", "--yes", "--force", self.name)

    def volumes(self) -> dict[str, int]:
        """The size of each volume by name, in bytes."""
        rows = run(
            "lvs", "--noheadings", "--units", "b", "--nosuffix", "--options", "lv_name,lv_size", self.name
        ).stdout.split()
        return dict(zip(rows[::2], map(int, rows[1::2]), strict=True))
