"""The ioctls of btrfs for a file system as a whole: switching quotas on, and its size.

Numbers and layouts come from include/uapi/linux/btrfs.h. Only for file systems that fspoolfs has
formatted: whether those of others count is their owner's choice. Both need CAP_SYS_ADMIN.
"""

from __future__ import annotations

import errno
import fcntl
import struct

from fspoolfs.system.btrfs import ioctl_number

_WRITE, _READ = 1, 2
_QUOTA_ARGS = struct.Struct("=QQ")  # cmd, status
_QUOTA_CTL = ioctl_number(_READ | _WRITE, 40, _QUOTA_ARGS.size)
_QUOTA_ENABLE, _QUOTA_ENABLE_SIMPLE = 1, 4

_RESIZE_ARGS = struct.Struct("=q4088s")  # fd, name
_RESIZE = ioctl_number(_WRITE, 3, _RESIZE_ARGS.size)


def enable_quotas(fd: int) -> None:
    """Switch on simple quotas, and qgroups on kernels before 6.7, which have no others."""
    try:
        fcntl.ioctl(fd, _QUOTA_CTL, bytearray(_QUOTA_ARGS.pack(_QUOTA_ENABLE_SIMPLE, 0)))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fcntl.ioctl(fd, _QUOTA_CTL, bytearray(_QUOTA_ARGS.pack(_QUOTA_ENABLE, 0)))


def fill_device(fd: int) -> None:
    """BTRFS_IOC_RESIZE: the file system becomes as large as its first device is."""
    fcntl.ioctl(fd, _RESIZE, bytearray(_RESIZE_ARGS.pack(0, b"1:max")))


def shrink(fd: int, size: int) -> None:
    """BTRFS_IOC_RESIZE: the file system uses `size` bytes of its first device; what lies behind is moved.

    Raises `OSError`: ENOSPC when what it holds does not fit, EINVAL below the least that it can be.
    """
    fcntl.ioctl(fd, _RESIZE, bytearray(_RESIZE_ARGS.pack(0, b"1:%d" % size)))
