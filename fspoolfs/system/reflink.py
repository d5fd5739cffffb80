"""Whether files of a file system can share their blocks (FICLONE, ioctl_ficlonerange(2)).

The usual ones are known, or say so when they are asked; the others are tried, which writes to them.
"""

from __future__ import annotations

import fcntl
import os
import struct

from fspoolfs.system import btrfs, syscalls

#: f_type of statfs(2), include/uapi/linux/magic.h; that of ext4 is ext2's and ext3's, too.
_EXT4, _XFS = 0xEF53, 0x58465342
#: xfs_fs.h: XFS_IOC_FSGEOMETRY_V1, _IOR('X', 100, struct xfs_fsop_geom_v1); `flags` lies behind 92 bytes.
_XFS_GEOMETRY = 0x80705864
_XFS_GEOMETRY_SIZE = 112
_XFS_FLAGS = struct.Struct("=92xI")
_XFS_REFLINK = 1 << 20  # XFS_FSOP_GEOM_FLAGS_REFLINK

#: Bytes of the file that is cloned for a trial: at least one block of any file system.
_TRIAL = 64 << 10


def supported(directory: int) -> bool:
    """Whether FICLONE works among files of the file system that the open `directory` is on."""
    match syscalls.filesystem_magic(directory):
        case btrfs.MAGIC:
            return True
        case magic if magic == _EXT4:
            return False
        case magic if magic == _XFS:
            return _xfs_supports(directory)
        case _:
            return _works(directory)


def _xfs_supports(directory: int) -> bool:
    geometry = bytearray(_XFS_GEOMETRY_SIZE)
    fcntl.ioctl(directory, _XFS_GEOMETRY, geometry)
    flags: int = _XFS_FLAGS.unpack_from(geometry)[0]
    return bool(flags & _XFS_REFLINK)


def _works(directory: int) -> bool:
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    fds: list[int] = []
    try:
        for _ in range(2):
            fds.append(os.open(".", flags, 0o600, dir_fd=directory))
        os.pwrite(fds[0], bytes(_TRIAL), 0)
        syscalls.clone_file(fds[1], fds[0])
    except OSError:
        return False
    finally:
        for fd in fds:
            os.close(fd)
    return True
