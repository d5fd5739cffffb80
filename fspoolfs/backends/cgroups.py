"""The contract of what limits an item's consumers, and how the kernel's control groups keep it.

An item with limits has a group, which processes and the groups of containers are put into. Groups
are a host's own and follow from definitions: they are made again at each start of a pool, so nothing
about them is journalled. Methods block. Refusals are `FspoolError`; an `OSError` that leaves a
method is the kernel's answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from fspoolfs.backends.root import HostDirectories, RootDirectory
from fspoolfs.errors import BusyError, UnsupportedError
from fspoolfs.model.infos import Feature
from fspoolfs.model.limits import LIMITS, Limits, controller
from fspoolfs.system import block_devices
from fspoolfs.system.block_devices import Disk
from fspoolfs.system.cgroups import location, tree
from fspoolfs.system.cgroups.legacy import Legacy
from fspoolfs.system.cgroups.tree import Place
from fspoolfs.system.cgroups.unified import Unified

__all__ = ["Groups", "KernelGroups", "Place"]


class Groups(Protocol):
    """The groups of items on this host. A `root` that is `None` is on other hosts' devices."""

    def features(self) -> Sequence[Feature]:
        """Whether there can be groups, and each interface file: usable here, or why not."""

    def features_of(self, root: RootDirectory | None) -> Sequence[Feature]:
        """The files that depend on a pool's devices: usable on this root, or why not."""

    def check(self, item: str, limits: Limits, root: RootDirectory | None) -> None:
        """Raise `UnsupportedError` for a limit that would not be in force."""

    def put(self, place: Place, limits: Limits, root: RootDirectory | None) -> None:
        """Let these limits and no others be in force in the item's group, made where it is missing.

        Without any, a group that is there stays and limits nothing.
        """

    def remove(self, place: Place) -> None:
        """Remove the item's group; that there is none is no error. Raises `BusyError` while it is used."""

    def path(self, place: Place) -> str:
        """Where the group is, as /proc/PID/cgroup says it and container runtimes take it."""

    def in_use(self, place: Place, pids: Sequence[int]) -> str:
        """Who is in it, and what to do about that, for a refusal."""

    def pids(self, place: Place) -> list[int]:
        """The processes in it and in the groups below it, as this process numbers them."""

    def enter(self, place: Place, pid: int) -> None:
        """Move a process into it."""

    def items(self) -> Mapping[tuple[str, str], list[str]]:
        """The items that have groups, by the uuid and the name of their pool."""


class KernelGroups:
    """`Groups` of the version that this host has, below the group `parent` or a default one.

    Looked for when it is asked first: most hosts have no item with limits.
    """

    def __init__(self, parent: str | None = None) -> None:
        self._parent = parent
        self._known: Unified | Legacy | None = None

    def _look(self) -> Unified | Legacy | str:
        """What was found is kept; what was missing may have come by the next time."""
        if self._known is None:
            found = location.find(self._parent)
            if isinstance(found, str):
                return found
            self._known = found
        return self._known

    def _hierarchy(self, item: str) -> Unified | Legacy:
        found = self._look()
        if isinstance(found, str):
            raise UnsupportedError(f"item {item}: its limits cannot be enforced: {found}")
        return found

    def features(self) -> Sequence[Feature]:
        found = self._look()
        if isinstance(found, str):
            return [Feature(name="cgroups", reason=found)]
        rows = [
            Feature(name=f"cgroup {file}", reason=reason, note=_note(found, file))
            for file, reason in found.reasons().items()
        ]
        return [Feature(name="cgroups", note=f"version {found.version}, in {_inside(found)}"), *rows]

    def features_of(self, root: RootDirectory | None) -> Sequence[Feature]:
        found = self._look()
        if isinstance(found, str):
            return []
        reasons = found.reasons()
        return [
            _feature_of(found, file, root)
            for file in LIMITS
            if controller(file) == "io" and not reasons[file]
        ]

    def check(self, item: str, limits: Limits, root: RootDirectory | None) -> None:
        if not limits:
            return
        found = self._hierarchy(item)
        reasons = found.reasons()
        for file, _ in limits:
            reason = reasons[file]
            if not reason and controller(file) == "io":
                reason = _why_not_on(found, file, root)
            if reason:
                raise UnsupportedError(
                    f"item {item}: the limit {file} cannot be enforced: {reason}; leave it out of <cgroups>"
                )

    def put(self, place: Place, limits: Limits, root: RootDirectory | None) -> None:
        if not limits and not self._exists(place):
            return
        disks = _disks(root) if any(controller(file) == "io" for file, _ in limits) else []
        self._hierarchy(place.item).put(place, limits, disks)

    def _exists(self, place: Place) -> bool:
        found = self._look()
        return not isinstance(found, str) and any(one.is_own(place) for one in found.trees)

    def remove(self, place: Place) -> None:
        if pids := self.pids(place):
            raise BusyError(self.in_use(place, pids))
        found = self._look()
        for one in () if isinstance(found, str) else found.trees:
            one.remove(place)

    def path(self, place: Place) -> str:
        return _inside(self._hierarchy(place.item), place)

    def in_use(self, place: Place, pids: Sequence[int]) -> str:
        return tree.in_use(place, pids)

    def pids(self, place: Place) -> list[int]:
        found = self._look()
        trees = () if isinstance(found, str) else found.trees
        return sorted({pid for one in trees for pid in one.pids(place)})

    def enter(self, place: Place, pid: int) -> None:
        own = [one for one in self._hierarchy(place.item).trees if one.is_own(place)]
        if not own:
            raise UnsupportedError(f"item {place.item}: its control group is gone; refresh the pool")
        for one in own:
            try:
                one.enter(place, pid)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise UnsupportedError(
                        f"item {place.item}: its control group holds groups with controllers of their "
                        "own, as a container runtime makes them, and then takes no process itself; move that "
                        "into one of these"
                    ) from error
                raise

    def items(self) -> Mapping[tuple[str, str], list[str]]:
        found = self._look()
        names: dict[tuple[str, str], list[str]] = {}
        for one in () if isinstance(found, str) else found.trees:
            for pool, items in one.items().items():
                names[pool] = sorted({*names.get(pool, []), *items})
        return names


def _inside(found: Unified | Legacy, place: Place | None = None) -> str:
    """A path from the root of the hierarchy."""
    first = found.trees[0]
    directory = first.base if place is None else first.group(place)
    return f"/{directory.relative_to(first.mount)}"


def _note(found: Unified | Legacy, file: str) -> str:
    if found.version == 1 and file == "io.max":
        return "reads and direct writes; version 1 does not limit what is written later"
    return ""


def _disks(root: RootDirectory | None) -> Sequence[Disk]:
    if not isinstance(root, HostDirectories):
        raise UnsupportedError("the pool's storage is on other hosts, whose devices this one cannot limit")
    fd = root.open_directory("")
    try:
        return block_devices.below(root.path, os.fstat(fd).st_dev)
    finally:
        os.close(fd)


def _why_not_on(found: Unified | Legacy, file: str, root: RootDirectory | None) -> str:
    try:
        disks = _disks(root)
    except UnsupportedError as error:
        return error.sentence
    return next(filter(None, (found.check_disk(file, disk) for disk in disks)), "")


def _feature_of(found: Unified | Legacy, file: str, root: RootDirectory | None) -> Feature:
    reason = _why_not_on(found, file, root)
    note = "" if reason else f"on {', '.join(f'{disk.name} {disk.number}' for disk in _disks(root))}"
    return Feature(name=f"cgroup {file}", reason=reason, note=note)
