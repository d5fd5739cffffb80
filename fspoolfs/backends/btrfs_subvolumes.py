"""Finding and destroying subvolumes, whoever made them and wherever in an item they lie.

By their ids, as the file system's own root tree has them: no path of a user's is resolved, no
symbolic link is met, and a subvolume that is moved meanwhile is destroyed all the same. What is
mounted on a directory in one comes off with it; whether an item is used is asked before.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from fspoolfs.progress import Progress
from fspoolfs.system import btrfs, walking
from fspoolfs.system.walking import Descent

#: How often destroying begins again because its owner made another subvolume meanwhile.
_ATTEMPTS = 16

#: What says that there is no such subvolume any more.
_GONE = frozenset((errno.ENOENT, errno.ESTALE))


def exists(fd: int, subvolume: int) -> bool:
    """Whether a subvolume was not destroyed."""
    try:
        os.close(btrfs.open_subvolume(fd, subvolume))
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    return True


def below(top: int, inside: Mapping[int, Sequence[int]]) -> list[int]:
    """All subvolumes below `top`, each after the one that holds it."""
    found = list(inside.get(top, ()))
    for subvolume in found:  # grows on the way
        found.extend(inside.get(subvolume, ()))
    return found


def descendants(fd: int, top: int) -> dict[int, int]:
    """The subvolumes in `top` and in these, each with the one that holds it, which comes before it."""
    found: dict[int, int] = {}
    waiting = [top]
    for parent in waiting:  # grows on the way
        for reference in btrfs.children(fd, parent):
            found[reference.child] = parent
            waiting.append(reference.child)
    return found


def destroy(fd: int, top: int, progress: Progress, lift: Callable[[int, int], None]) -> Iterator[int]:
    """Destroy `top` and all in it, the deepest first; answers the id of each when it is gone.

    `fd` lies outside of it. `lift` takes away a subvolume's limit: even to destroy one in another
    takes space in that. May be cancelled between two; repeating it finishes.
    """
    for attempt in range(_ATTEMPTS):
        holders = descendants(fd, top)
        for subvolume in (top, *holders) if holders else ():
            lift(fd, subvolume)
        try:
            for subvolume in (*reversed(holders), top):
                progress.advance(0)
                _destroy_one(fd, subvolume, holders.get(subvolume))
                yield subvolume
                progress.advance()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _destroy_one(fd: int, subvolume: int, holder: int | None) -> None:
    """`holder` is the subvolume to be destroyed later in which it lies, if any: it may be opened up."""
    try:
        try:
            btrfs.destroy(fd, subvolume)
        except OSError as error:
            if error.errno != errno.EROFS or holder is None:
                raise
            _make_writable(fd, holder)
            btrfs.destroy(fd, subvolume)
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _make_writable(fd: int, subvolume: int) -> None:
    opened = btrfs.open_subvolume(fd, subvolume)
    try:
        btrfs.set_read_only(opened, False)
    finally:
        os.close(opened)


def in_directory(fd: int) -> list[int]:
    """The subvolumes in a plain directory, but for those in these; found by walking it.

    Best effort: what its owner moves about meanwhile may be missed, and is removed as a directory.
    """
    found: list[int] = []
    with Descent(fd, ".") as descent:
        try:
            _exhaust(walking.split(descent.here))
            _walk(descent, found)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return found


def _walk(descent: Descent, found: list[int]) -> None:
    while True:
        pending = descent.here.pending
        if pending:
            if _enter(descent, pending.pop()):
                if descent.here.inode == btrfs.SUBVOLUME_INODE:
                    found.append(btrfs.subvolume_of(descent.here.fd))
                    descent.leave()
                else:
                    _exhaust(walking.split(descent.here))
        elif descent.at_top:
            return
        else:
            descent.leave()


def _enter(descent: Descent, name: str) -> bool:
    """Whether an entry is a directory that is still there, and nothing mounted."""
    try:
        descent.enter(name)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EXDEV, *walking.NOT_A_DIRECTORY}:
            return False
        raise
    return True


def _exhaust(names: Iterator[str]) -> None:
    """Read a directory to its end for the sake of its subdirectories."""
    for _ in names:
        pass
