"""Limits of version 2 (Documentation/admin-guide/cgroup-v2.rst): one hierarchy for all controllers."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fspoolfs.errors import FspoolError, StorageError, UnsupportedError
from fspoolfs.model import limits as values
from fspoolfs.model.limits import LIMITS, Limits
from fspoolfs.system.block_devices import Disk
from fspoolfs.system.cgroups.tree import Place, Tree, write

#: All that can be had is switched on: the kernel knows whose a page is that is written later only where
#: both memory and io are.
_CONTROLLERS: Final = ("memory", "io", "pids", "cpu")
#: What each file of one value holds where nothing limits.
_UNLIMITED: Final = {"memory.max": "max", "memory.high": "max", "pids.max": "max", "cpu.max": "max 100000"}
#: What the kernel answers to a value or a device that it does not take.
_REFUSALS: Final = (errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP, errno.ERANGE, errno.ENOENT)


class Unified:
    """The hierarchy that is mounted at `mount`."""

    version = 2

    def __init__(self, mount: Path, parent: str) -> None:
        self._tree = Tree(mount, parent)
        self._trees = (self._tree,)
        self._reasons: Mapping[str, str] | None = None

    @property
    def trees(self) -> Sequence[Tree]:
        return self._trees

    def reasons(self) -> Mapping[str, str]:
        """Each interface file: why it limits nothing here, empty where it does."""
        if self._reasons is None:
            self._reasons = self._probed()
        return self._reasons

    def _probed(self) -> Mapping[str, str]:
        try:
            offered = (self._tree.parent / "cgroup.controllers").read_text().split()
        except OSError as error:
            return dict.fromkeys(LIMITS, f"{self._tree.parent} is no control group: {error.strerror}")
        reasons = {}
        try:
            with suppress(FileExistsError):
                self._tree.base.mkdir(mode=0o755)
            failed = _switch_on(self._tree.parent, offered)
            for file in LIMITS:
                controller = values.controller(file)
                if controller not in offered:
                    reasons[file] = f"the controller {controller} is not available in {self._tree.parent}"
                elif controller in failed:
                    reasons[file] = failed[controller]
                elif not (self._tree.base / file).exists():
                    reasons[file] = f"this kernel has no {file}"
            with suppress(OSError):  # there are groups in it
                self._tree.base.rmdir()
        except OSError as error:
            return dict.fromkeys(LIMITS, f"no control group can be made in {self._tree.parent}: {error}")
        return {file: reasons.get(file, "") for file in LIMITS}

    def check_disk(self, file: str, disk: Disk) -> str:
        """Why `file` limits nothing on this disk; empty where it does."""
        if file in ("io.weight", "io.latency") and not disk.has_queue:
            return f"{disk.name} has no request queue of its own, and only such are served by {file}"
        if file == "io.weight" and not self._has_cost_model(disk):
            return (
                f"weights count only where the cost model is switched on for a device; write '{disk.number} "
                f"enable=1' into {self._tree.mount}/io.cost.qos"
            )
        return ""

    def _has_cost_model(self, disk: Disk) -> bool:
        try:
            lines = (self._tree.mount / "io.cost.qos").read_text().splitlines()
        except OSError:
            return False
        return any(line.split()[:2] == [disk.number, "enable=1"] for line in lines)

    def put(self, place: Place, limits: Limits, disks: Sequence[Disk]) -> None:
        """Make the group where it is missing, and let these limits and no others be in force."""
        group = self._tree.make(place)
        wanted = dict(limits)
        needed = {values.controller(file) for file in wanted}
        for directory in (self._tree.parent, self._tree.base, group.parent):
            offered = (directory / "cgroup.controllers").read_text().split()
            failed = _switch_on(directory, offered)
            for controller in needed:
                if controller in failed or controller not in offered:
                    reason = failed.get(controller, f"the controller {controller} is gone from {directory}")
                    raise UnsupportedError(f"item {place.item}: {reason}")
        for file in LIMITS:
            try:
                for line in _lines(group / file, file, wanted.get(file), disks):
                    write(group / file, line)
            except OSError as error:
                if file in wanted:
                    raise refusal(place, file, wanted[file], error) from error
                if error.errno != errno.ENOENT:
                    raise StorageError.from_os(f"lift {file} of item {place.item}", error) from error


def _switch_on(directory: Path, offered: Collection[str]) -> Mapping[str, str]:
    """Let the groups in `directory` have the controllers; why not, for those that refuse."""
    file = directory / "cgroup.subtree_control"
    missing = [one for one in _CONTROLLERS if one in offered and one not in file.read_text().split()]
    failed = {}
    for controller in missing:
        try:
            write(file, f"+{controller}")
        except OSError as error:
            # cgroup-v2.rst, No Internal Process Constraint.
            hint = " since processes are in it" if error.errno == errno.EBUSY else ""
            failed[controller] = (
                f"the controller {controller} cannot be switched on in {directory}{hint}: {error.strerror}"
            )
    return failed


def _lines(path: Path, file: str, value: str | None, disks: Sequence[Disk]) -> list[str]:
    """What has to be written so that `value` is in force, or nothing for `None`."""
    if file in _UNLIMITED:
        if value is None:
            return [] if path.read_text().strip() == _UNLIMITED[file] else [_UNLIMITED[file]]
        return [_full(file, value)]
    numbers = [disk.number for disk in disks] if value is not None else []
    lines = []
    if path.exists():  # devices that the pool has no more, as a loop device of yesterday
        others = [line.split()[0] for line in path.read_text().splitlines()]
        lines = [f"{one} {_no_limit(file)}" for one in others if ":" in one and one not in numbers]
    if value is None:
        return lines
    return [*lines, *(f"{number} {_of_device(file, value)}" for number in numbers)]


def _full(file: str, value: str) -> str:
    """A bandwidth always with its period: the kernel keeps the one before where none is written."""
    if file != "cpu.max":
        return value
    quota, period = values.bandwidth(value)
    return f"{values.MAX if quota is None else quota} {period}"


def _of_device(file: str, value: str) -> str:
    """All keys, since the kernel keeps those that are not written."""
    if file == "io.weight":
        return str(values.weight(value))
    if file != "io.max":
        return value
    rates = values.rates(value)
    return " ".join(f"{key}={rates.get(key) or values.MAX}" for key in values.RATES)


def _no_limit(file: str) -> str:
    match file:
        case "io.max":
            return _of_device(file, "")
        case "io.weight":
            return "default"
        case _:
            return "target=0"


def refusal(place: Place, file: str, value: str, error: OSError) -> FspoolError:
    """What the kernel answered to a limit, as a refusal."""
    what = f"item {place.item}: the kernel does not take {file} {value!r}"
    if error.errno in _REFUSALS:
        return UnsupportedError(f"{what}: {error.strerror}")
    return StorageError.from_os(what, error)
