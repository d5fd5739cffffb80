"""Paths of the tree in memory, refused as the real system calls refuse them. Knows no tree."""

from __future__ import annotations

import errno
import os

#: The longest name of an entry, in bytes: NAME_MAX of <linux/limits.h>.
NAME_MAX = 255


def failure(number: int, path: str) -> OSError:
    """What a system call that fails with `number` raises."""
    return OSError(number, os.strerror(number), path)


def components(path: str) -> list[str]:
    """The names on the way to `path`.

    Raises `OSError`: EINVAL for a path that is absolute or could leave the root; ENAMETOOLONG.
    """
    names = path.split("/") if path else []
    if not {"", ".", ".."}.isdisjoint(names) or "\0" in path:
        raise failure(errno.EINVAL, path)
    if any(len(os.fsencode(name)) > NAME_MAX for name in names):
        raise failure(errno.ENAMETOOLONG, path)
    return names
