"""Limits of version 1 (Documentation/admin-guide/cgroup-v1/): a hierarchy for each controller.

Of the files of version 2 those are translated that have one of the same meaning.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fspoolfs.errors import StorageError
from fspoolfs.model import limits as values
from fspoolfs.model.limits import LIMITS, Limits
from fspoolfs.system.block_devices import Disk
from fspoolfs.system.cgroups.tree import Place, Tree, write
from fspoolfs.system.cgroups.unified import refusal

#: Which controller has what version 2 calls otherwise.
_CONTROLLERS: Final = {"io": "blkio"}
_THROTTLES: Final = {
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}
#: "No limit" where a number stands for it.
_NONE: Final = -1
_NO_TWIN: Final = "version 1 of control groups has nothing that means the same"


class Legacy:
    """The hierarchies of version 1, by controller, and `others`, which limit nothing."""

    version = 1

    def __init__(self, mounts: Mapping[str, Path], others: Sequence[Path], parent: str) -> None:
        self._by_controller = {name: Tree(mount, parent) for name, mount in mounts.items()}
        # Hierarchies can have several controllers each.
        known = {tree.mount: tree for tree in self._by_controller.values()}
        self._trees = (*known.values(), *(Tree(mount, parent) for mount in others))

    @property
    def trees(self) -> Sequence[Tree]:
        """All of them: a runtime makes its groups in each, below what is called as the item's."""
        return self._trees

    def reasons(self) -> Mapping[str, str]:
        """Each interface file of version 2: why it limits nothing here, empty where it does."""
        return {file: self._reason(file) for file in LIMITS}

    def _reason(self, file: str) -> str:
        if file in ("io.weight", "io.latency", "memory.high"):
            return _NO_TWIN
        controller = _controller(file)
        tree = self._by_controller.get(controller)
        if tree is None:
            return f"the controller {controller} of version 1 is not mounted"
        if not tree.parent.is_dir():
            return (
                f"there is no control group {tree.parent}: make it, or name another one with --cgroup-parent"
            )
        if not os.access(tree.parent, os.W_OK):
            return f"this daemon may not make a control group in {tree.parent}"
        return ""

    def check_disk(self, file: str, disk: Disk) -> str:
        """Why `file` limits nothing on this disk; empty where it does."""
        return ""

    def put(self, place: Place, limits: Limits, disks: Sequence[Disk]) -> None:
        """Make the groups where they are missing, and let these limits and no others be in force."""
        wanted = dict(limits)
        needed = {_controller(file) for file in wanted}
        for name in needed & self._by_controller.keys():
            self._by_controller[name].make(place)
        for file in LIMITS:
            tree = self._by_controller.get(_controller(file))
            if tree is None or self._reason(file):
                continue
            # What limited before and does no more has a group, too.
            if not tree.is_own(place):
                continue
            group = tree.group(place)
            try:
                for name, line in _lines(group, file, wanted.get(file), disks):
                    write(group / name, line)
            except OSError as error:
                if file in wanted:
                    raise refusal(place, file, wanted[file], error) from error
                if error.errno != errno.ENOENT:
                    raise StorageError.from_os(f"lift {file} of item {place.item}", error) from error


def _controller(file: str) -> str:
    controller = values.controller(file)
    return _CONTROLLERS.get(controller, controller)


def _lines(group: Path, file: str, value: str | None, disks: Sequence[Disk]) -> list[tuple[str, str]]:
    """Files of the group and what has to be written into them, so that `value` or nothing is in force."""
    text = values.MAX if value is None else value
    match file:
        case "io.max":
            return _throttles(group, value, disks)
        case "memory.max":
            size = values.memory(text)
            return [("memory.limit_in_bytes", str(_NONE if size is None else size))]
        case "cpu.max":
            quota, period = values.bandwidth(text)
            # In this order any quota is taken: none is longer than the period before.
            return [
                ("cpu.cfs_quota_us", str(_NONE)),
                ("cpu.cfs_period_us", str(period)),
                ("cpu.cfs_quota_us", str(_NONE if quota is None else quota)),
            ]
        case _:
            return [(file, text)]


def _throttles(group: Path, value: str | None, disks: Sequence[Disk]) -> list[tuple[str, str]]:
    rates = values.rates(value or "")
    numbers = [disk.number for disk in disks] if value is not None else []
    lines = []
    for key, name in _THROTTLES.items():
        with suppress(FileNotFoundError):
            for line in (group / name).read_text().splitlines():
                number = line.split()[0]
                if number not in numbers:
                    lines.append((name, f"{number} 0"))
        lines += [(name, f"{number} {rates.get(key) or 0}") for number in numbers]
    return lines
