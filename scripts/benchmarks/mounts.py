"""What is mounted in this mount namespace, and how to get rid of it; never mounts anything."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo, proc_pid_mountinfo(5); `device` is "major:minor"."""

    device: str
    target: Path
    kind: str
    source: str


def mounts() -> list[Mount]:
    """All mounts, the oldest first. Asks none of them, so that one that hangs hangs no one."""
    found = []
    for line in _MOUNTINFO.read_bytes().splitlines():
        left, _, right = line.partition(b" - ")
        _, _, device, _, target, *_ = left.split(b" ")
        kind, source, *_ = right.split(b" ")
        found.append(Mount(device.decode(), Path(_plain(target)), kind.decode(), _plain(source)))
    return found


def _plain(field: bytes) -> str:
    """Undo the octal escapes of blanks and backslashes."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field).decode(errors="surrogateescape")


def mount_at(target: Path) -> Mount | None:
    """The topmost mount at exactly `target`."""
    return next((mount for mount in reversed(mounts()) if mount.target == target), None)


def mount_of(path: Path) -> Mount:
    """The mount that `path`, an absolute path without symbolic links, lies on."""
    above = (path, *path.parents)
    return max(
        (mount for mount in mounts() if mount.target in above),
        key=lambda mount: len(mount.target.parts),
    )


def unmount(target: Path) -> None:
    """Detach lazily what is mounted at `target`; nothing is no error."""
    if mount_at(target) is not None:
        subprocess.run(["umount", "--lazy", "--", target], check=True)


def unmount_below(directory: Path) -> None:
    """Detach lazily whatever is mounted below `directory`, the newest first."""
    for mount in reversed(mounts()):
        if directory in mount.target.parents:
            subprocess.run(["umount", "--lazy", "--", mount.target], check=True)
