"""What CephFS tells and takes through extended attributes and its hidden directory of snapshots.

See ceph(8) and the pages on quotas and snapshots of CephFS; both clients know the same names.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

#: f_type of the kernel's own client, include/uapi/linux/magic.h; ceph-fuse has that of FUSE.
MAGIC = 0x00C36400

MAX_BYTES, MAX_FILES = "ceph.quota.max_bytes", "ceph.quota.max_files"
#: Bytes of all files below a directory, and the number of files and directories, itself included.
BYTES, ENTRIES = "ceph.dir.rbytes", "ceph.dir.rentries"
#: In every directory, and listed in none.
SNAPSHOTS = ".snap"
#: How names begin of snapshots that were taken of a directory above.
_INHERITED = "_"

_ABSENT = frozenset((errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))


def number(directory: int, name: str) -> int | None:
    """One of the attributes above; `None` where it is not set, or this is no CephFS."""
    try:
        return int(os.getxattr(directory, name))
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None


def limit(directory: int, name: str, value: int | None) -> None:
    """Set `MAX_BYTES` or `MAX_FILES`; `None` takes the limit away."""
    os.setxattr(directory, name, str(value or 0).encode())


def take(directory: int, name: str) -> None:
    """Take a snapshot of a directory."""
    os.mkdir(f"{SNAPSHOTS}/{name}", 0o755, dir_fd=directory)


def drop(directory: int, name: str) -> None:
    """Remove one; that it is gone is no error."""
    try:
        os.rmdir(f"{SNAPSHOTS}/{name}", dir_fd=directory)
    except FileNotFoundError:
        return


def snapshots(directory: int) -> Sequence[str]:
    """The names of the snapshots of this very directory."""
    try:
        fd = os.open(SNAPSHOTS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:  # a file system without them
        return ()
    try:
        return [name for name in os.listdir(fd) if not name.startswith(_INHERITED)]
    finally:
        os.close(fd)


def drop_all(directory: int) -> bool:
    """Remove every snapshot of a directory; whether there was one."""
    found = snapshots(directory)
    for name in found:
        drop(directory, name)
    return bool(found)
