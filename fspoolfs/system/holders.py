"""Who keeps a mounted file system from being unmounted without mounting anything itself.

A shell that stands in a directory, a program with an open file. Looks through /proc at what can be
seen there; mounts are found by `fspoolfs.system.namespaces`. Never ends a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fspoolfs.model.infos import MountUse

_PLACES = ("cwd", "root", "exe")


def holders(path: str) -> list[MountUse]:
    """The processes but this one with something open beneath the mount point `path`, one use each."""
    inside = f"{path.rstrip('/')}/"
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        for place in _links(entry):
            if place == path or place.startswith(inside):
                found.append(
                    MountUse(
                        pid=int(entry.name),
                        command=_command(entry),
                        inside=place[len(inside) :].removesuffix(" (deleted)"),
                        target=place,
                    )
                )
                break
    return found


def _links(process: Path) -> Iterator[str]:
    """Where its directories and descriptors lead; a process that ends or is not ours has none."""
    links = [str(process / name) for name in _PLACES]
    with suppress(OSError):
        links += [f"{process}/fd/{name}" for name in os.listdir(process / "fd")]
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return "?"
