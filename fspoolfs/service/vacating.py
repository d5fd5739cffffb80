"""Removes the directories above an item's place that were made for it and hold nothing any more.

Only those that look exactly as fspoolfs makes them go, so that an item that comes back finds what it
left; what anybody has put his hand to stays, and so does everything that is not empty. Runs in the
committer's thread or during recovery, where nothing is being made below the same directories.
Never fails: what cannot be removed stays, empty.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection

from fspoolfs.backends import layout
from fspoolfs.backends.generic import DEFAULT_MODE
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import BusyError, FspoolError
from fspoolfs.model.infos import FileInfo


def _everything_is_unused(place: str) -> None:
    pass


def vacate(
    root: RootDirectory,
    location: str,
    *,
    in_use: Callable[[str], None] = _everything_is_unused,
    besides: Collection[str] = (),
) -> None:
    """Remove what is empty above `location`, which an item has left, from below.

    `in_use` raises `BusyError` for a directory that somebody has mounted; `besides` are directories
    that are items themselves by now.
    """
    if "/" not in location or location.startswith(f"{layout.OWN}/"):
        return
    above = location.rpartition("/")[0]
    try:
        while above and above not in besides:
            _remove(root, above, in_use)
            above = above.rpartition("/")[0]
    except (OSError, FspoolError):
        return  # not empty, most likely: other items are in there


def _remove(root: RootDirectory, directory: str, in_use: Callable[[str], None]) -> None:
    """Raises `OSError` or `BusyError` where it stays; one that is not there is none of those."""
    try:
        if not _as_made(root.stat(directory)):
            raise BusyError(f"{directory} is somebody's")
        in_use(directory)
        root.remove_directory(directory)
    except FileNotFoundError:
        return


def _as_made(info: FileInfo) -> bool:
    return stat.S_ISDIR(info.mode) and stat.S_IMODE(info.mode) == DEFAULT_MODE and info.owner == os.geteuid()
