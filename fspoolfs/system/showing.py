"""Showing a directory read-only in another place: a bind mount that is read-only from the beginning.

The new mount API (open_tree(2), mount_setattr(2), move_mount(2); Linux 5.12) sets a mount's attributes
before anybody can see it, and takes the source as a descriptor, so no path is followed.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from fspoolfs.system import mount_api, syscalls

#: Passable for everyone, to be listed by nobody.
_MODE = 0o711


class ReadOnlyMounts:
    """Mounts directories read-only, nosuid and nodev. Needs CAP_SYS_ADMIN."""

    def show(self, fd: int, at: str) -> None:
        """Mount the directory behind `fd` at `at`, made if missing; what else is mounted there goes.

        Raises `OSError`: EPERM without the right to mount, ENOSYS on older kernels.
        """
        if _shows(at, fd):
            return
        self.hide(at)
        for directory in (os.path.dirname(at), at):
            with suppress(FileExistsError):
                os.mkdir(directory, _MODE)
        # With what is mounted below: snapshots may be file systems of their own.
        tree = mount_api.copy_tree(fd, recursive=True)
        try:
            wanted = mount_api.READ_ONLY | mount_api.NOSUID | mount_api.NODEV
            mount_api.set_attributes(tree, wanted, recursive=True)
            mount_api.move_to_path(tree, at)
        finally:
            os.close(tree)

    def hide(self, at: str) -> None:
        """Take away what is mounted at `at`, used or not, and the directory; it may be gone."""
        try:
            while True:
                syscalls.unmount(at, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        try:
            os.rmdir(at)
        except FileNotFoundError:
            return


def _shows(at: str, fd: int) -> bool:
    """Whether the directory behind `fd` is mounted at `at` already, read-only."""
    try:
        there, wanted = os.stat(at), os.fstat(fd)
        read_only = os.statvfs(at).f_flag & os.ST_RDONLY
    except OSError:
        return False
    return bool(read_only) and (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino)
