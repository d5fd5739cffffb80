"""Hard links inside a tree that is being copied.

The first copy of an inode with several names gets one more name, made of the inode's number, in a
directory of its own at the top of the new tree; every further name is linked from there. So neither
depth nor the number of inodes costs memory. `remove` takes the directory away at the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets

#: What link(2) answers at an inode's limit, and where there are no hard links: then it is copied.
_NO_LINK = frozenset((errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS))


class HardLinks:
    """First copies of the inodes of one tree. For one thread."""

    def __init__(self, top_fd: int) -> None:
        self._top_fd = os.dup(top_fd)
        self._fd: int | None = None
        # Random, so that it meets no name of the tree.
        self._name = f".links-{secrets.token_hex(16)}"

    def link(self, info: os.stat_result, name: str, *, dir_fd: int) -> bool:
        """Make `name` a link to the earlier copy of the inode; False where there is none."""
        if self._fd is None:
            return False
        try:
            os.link(_key(info), name, src_dir_fd=self._fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True

    def remember(self, info: os.stat_result, name: str, *, dir_fd: int) -> None:
        """`name` is a copy of the inode that further names can be linked to."""
        if self._fd is None:
            self._fd = self._make()
        key = _key(info)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(key, dir_fd=self._fd)  # a copy that cannot take more links
        try:
            os.link(name, key, src_dir_fd=dir_fd, dst_dir_fd=self._fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise

    def _make(self) -> int:
        os.mkdir(self._name, 0o700, dir_fd=self._top_fd)
        return os.open(
            self._name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._top_fd
        )

    def remove(self) -> None:
        """Take the additional names away."""
        if self._fd is None:
            return
        for key in os.listdir(self._fd):
            os.unlink(key, dir_fd=self._fd)
        os.rmdir(self._name, dir_fd=self._top_fd)

    def close(self) -> None:
        """Close descriptors; nothing is removed."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        os.close(self._top_fd)


def _key(info: os.stat_result) -> str:
    return f"{info.st_dev:x}-{info.st_ino:x}"
