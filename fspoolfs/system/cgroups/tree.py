"""The directories PARENT/fspool/POOL/ITEM of one mounted hierarchy, and who is in them.

What the interface files of a group mean is other modules' work; those of processes are the same in
both versions. Pools are told apart by a mark on their directory, since daemons may share a parent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fspoolfs.errors import BusyError, ExistsError

#: The group below the parent that holds those of all pools.
BASE: Final = "fspool"
_MARK: Final = "user.fspoolfs.pool"
#: What an interface file's name may begin with (cgroup-v2.rst, cgroup-v1/), and files that are called
#: so as a whole: no group can have such a name.
_TAKEN: Final = frozenset(
    {
        *("cgroup", "cpu", "cpuacct", "cpuset", "memory", "io", "blkio", "pids", "devices", "freezer"),
        *("hugetlb", "rdma", "misc", "dmem", "irq", "net_cls", "net_prio", "perf_event", "debug"),
    }
)
_TAKEN_WHOLE: Final = frozenset({"tasks", "notify_on_release", "release_agent"})


def escaped(name: str) -> str:
    """The name of a group, as systemd escapes one that would be an interface file's."""
    taken = name in _TAKEN_WHOLE or ("." in name and name.partition(".")[0] in _TAKEN)
    return f"_{name}" if taken or name.startswith("_") else name


def unescaped(group: str) -> str:
    """The name that `escaped` made into `group`."""
    return group.removeprefix("_")


@dataclass(frozen=True, slots=True)
class Place:
    """Whose group it is: the pool's uuid and name, and the item's name."""

    uuid: str
    pool: str
    item: str

    @property
    def inside(self) -> str:
        """The path below the group of all pools."""
        return f"{escaped(self.pool)}/{escaped(self.item)}"


class Tree:
    """The groups below `parent`, an absolute path inside the hierarchy that is mounted at `mount`."""

    def __init__(self, mount: Path, parent: str) -> None:
        self.mount = mount
        self.parent = mount / parent.lstrip("/")
        self.base = self.parent / BASE

    def group(self, place: Place) -> Path:
        return self.base / place.inside

    def make(self, place: Place) -> Path:
        """Make the group and what is missing above it. Raises `ExistsError` for another pool's."""
        while True:
            try:
                return self._make(place)
            except FileNotFoundError:
                # Another daemon may have removed what is above, empty; the parent is nobody's to remove.
                if not self.parent.is_dir():
                    raise

    def _make(self, place: Place) -> Path:
        group = self.group(place)
        for directory in (self.base, group.parent):
            with suppress(FileExistsError):
                directory.mkdir(mode=0o755)
        self._claim(group.parent, place)
        with suppress(FileExistsError):
            group.mkdir(mode=0o755)
        return group

    def _claim(self, directory: Path, place: Place) -> None:
        owner = _owner(directory)
        if not owner:
            os.setxattr(directory, _MARK, place.uuid.encode())
        elif owner != place.uuid:
            raise ExistsError(
                f"the control group {directory} belongs to another pool {place.pool}, with uuid {owner}; "
                "give this daemon a --cgroup-parent of its own, or remove that group"
            )

    def is_own(self, place: Place) -> bool:
        """Whether the group is there and was made by `make`."""
        group = self.group(place)
        return group.is_dir() and _owner(group.parent) == place.uuid

    def _is_removable(self, place: Place) -> bool:
        """Whether it is there and no other pool's: a runtime may have made it, unmarked, for its own."""
        group = self.group(place)
        return group.is_dir() and _owner(group.parent) in ("", place.uuid)

    def remove(self, place: Place) -> None:
        """Remove the group with all below it; that there is none is no error.

        Raises `BusyError` while anybody is in it, and has then removed nothing that is used.
        """
        if not self._is_removable(place):
            return
        if pids := self.pids(place):
            raise BusyError(in_use(place, pids))
        group = self.group(place)
        try:
            for directory in (*_below(group), group):
                with suppress(FileNotFoundError):
                    directory.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise BusyError(in_use(place, self.pids(place))) from error
        with suppress(OSError):  # other items have theirs in there
            group.parent.rmdir()
            self.base.rmdir()

    def pids(self, place: Place) -> list[int]:
        """Who is in the group or in one below it; none where there is no such group."""
        group = self.group(place)
        found: set[int] = set()
        for directory in (group, *_below(group)):
            with suppress(FileNotFoundError):
                found.update(map(int, (directory / "cgroup.procs").read_text().split()))
        # Those of other namespaces have no number here.
        return sorted(found - {0})

    def enter(self, place: Place, pid: int) -> None:
        """Move a process into the group. Raises `OSError` as the kernel answered."""
        write(self.group(place) / "cgroup.procs", str(pid))

    def items(self) -> Mapping[tuple[str, str], list[str]]:
        """The items that have a group, by the uuid and the name of their pool."""
        found: dict[tuple[str, str], list[str]] = {}
        for directory in _directories(self.base):
            owner = _owner(directory)
            if owner:
                names = [unescaped(item.name) for item in _directories(directory)]
                found[owner, unescaped(directory.name)] = names
        return found


def in_use(place: Place, pids: Sequence[int]) -> str:
    """Why a group stays, with who is in it."""
    shown = ", ".join(f"process {pid} ({command(pid)})" for pid in pids[:5])
    more = f" and {len(pids) - 5} more" if len(pids) > 5 else ""
    return (
        f"item {place.item} has {shown or 'a process'}{more} under its limits; end that, or move it into "
        "another control group"
    )


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def write(file: Path, text: str) -> None:
    """One write(2), which is one request to the kernel. Raises `OSError` as that answered."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def _owner(directory: Path) -> str:
    try:
        return os.getxattr(directory, _MARK).decode("utf-8", "replace")
    except OSError:
        return ""


def _directories(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _below(group: Path) -> list[Path]:
    """All groups in a group, the deepest first."""
    found: list[Path] = []
    for directory in _directories(group):
        found += [*_below(directory), directory]
    return found
