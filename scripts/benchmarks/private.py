"""Runs a peer's daemon with directories of the host hidden from it, so that it meets no other instance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

#: Mount an empty tmpfs over each directory before "--" that exists, then become what stands behind it.
_SCRIPT = """set -e
while [ "$1" != -- ]; do
    [ ! -d "$1" ] || mount -t tmpfs -o mode=0755 tmpfs "$1"
    shift
done
shift
exec "$@"
"""

#: Where daemons keep their sockets, locks and process ids.
RUNTIME = ("/run", "/dev/shm")


def private(argv: Sequence[str | Path], *, hidden: Sequence[str] = RUNTIME) -> list[str]:
    """The command that runs `argv` in a mount namespace in which `hidden` are empty; its process id stays."""
    command = (
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        _SCRIPT,
        "sh",
        *hidden,
        "--",
    )
    return [*command, *(os.fspath(part) for part in argv)]
