"""What the machine has at this moment: mounts, loop devices, processes, shared memory.

Read from proc(5) and sysfs, without the package under test and without asking any mounted file
system, since one whose daemon hangs would hang the test run too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: proc(5): space, tab, newline and backslash stand as octal escapes in mountinfo.
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: str
    fstype: str
    source: str


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """An attached loop device and the file behind it."""

    device: str
    file: str


@dataclass(frozen=True, slots=True)
class Process:
    """A living process and how it was called."""

    pid: int
    command: str


def mounts() -> list[Mount]:
    """The mounts of this mount namespace, later ones over earlier ones."""
    return [_mount(line) for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at exactly `path`, alive or not."""
    return any(mount.point == str(path) for mount in mounts())


def loop_devices() -> list[LoopDevice]:
    """The loop devices of the machine that have a file; losetup(8) reads the same attribute."""
    return list(_loop_devices())


def processes_with(variable: str, value: str) -> list[Process]:
    """The processes that were started with `variable` set to `value`, but for those of other users."""
    return list(_processes_with(f"{variable}={value}".encode()))


def shared_memory() -> list[str]:
    """The paths of this user's files in /dev/shm."""
    return [str(path) for path in Path("/dev/shm").iterdir() if _owner(path) == os.geteuid()]


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # removed since it was listed
        return None


def _mount(line: str) -> Mount:
    # 36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/root rw
    before, _, after = line.partition(" - ")
    fstype, source = after.split(" ")[:2]
    return Mount(point=_unescaped(before.split(" ")[4]), fstype=fstype, source=_unescaped(source))


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def _loop_devices() -> Iterator[LoopDevice]:
    for attribute in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = attribute.read_text().rstrip("\n")
        except OSError:  # detached since it was listed
            continue
        yield LoopDevice(device=f"/dev/{attribute.parent.parent.name}", file=file)


def _processes_with(setting: bytes) -> Iterator[Process]:
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes()
            command = (directory / "cmdline").read_bytes()
        except OSError:  # ended since it was listed, or another user's
            continue
        if setting in environment.split(b"\0"):
            yield Process(int(directory.name), command.replace(b"\0", b" ").decode(errors="replace").strip())


def in_own_mount_namespace() -> bool:
    """Whether this process was put into a new mount namespace when it was started."""
    try:
        return os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")
    except OSError:  # a parent of another user
        return False
