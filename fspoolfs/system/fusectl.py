"""The kernel's control of FUSE connections: letting go all that waits for one.

A call that a FUSE server has taken and does not answer waits where no signal reaches it. Only ending
the connection (Documentation/filesystems/fuse.rst) brings it back, with ECONNABORTED.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from fspoolfs.system import mounting

_CONNECTIONS = "/sys/fs/fuse/connections"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def abort(minor: int) -> bool:
    """End the connection with this number, the minor one of its mounts' device; False when there is none."""
    try:
        fd = open_abort(minor)
    except FileNotFoundError:
        return False
    try:
        os.write(fd, b"1")
    finally:
        os.close(fd)
    return True


def open_abort(minor: int) -> int:
    """A descriptor for the caller to close; what is written to it ends the connection with this number.

    It stays that one's alone, also when the number is another's by then. Raises `OSError`.
    """
    with _control() as directory:
        return os.open(f"{minor}/abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)


@contextlib.contextmanager
def _control() -> Iterator[int]:
    """A descriptor of the directory of connections; mounted nowhere where the system has not mounted it."""
    directory = os.open(_CONNECTIONS, _DIRECTORY) if os.path.isdir(_CONNECTIONS) else -1
    if directory < 0 or not os.listdir(directory):
        if directory >= 0:
            os.close(directory)
        directory = _own()
    try:
        yield directory
    finally:
        os.close(directory)


def _own() -> int:
    mount = mounting.mount_detached("fusectl", "fusectl", "")
    try:
        return os.open(".", _DIRECTORY, dir_fd=mount)
    finally:
        os.close(mount)
