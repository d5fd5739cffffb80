"""Project quota by system call: whose project a file is in, what projects use, what they may use.

A project is a number that files carry and directories hand down; the kernel adds up what all files
of one number use (Documentation/filesystems/quota.rst, xfs_quota(8)). Works on ext4 and xfs alike,
without helper programs. Nothing here chooses numbers or knows what they stand for. Failures are
`OSError`; quotas are the file system's that a descriptor is on, whatever file it is.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import NamedTuple

# include/uapi/linux/fs.h; the directions of ioctl numbers differ on powerpc, mips and sparc.
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
#: Files and directories made in this directory get its project.
_FS_XFLAG_PROJINHERIT = 0x200
#: struct fsxattr: xflags, extsize, nextents, projid, cowextsize, padding.
_FSXATTR = struct.Struct("=5I8x")

# include/uapi/linux/quota.h
_PRJQUOTA = 2
_Q_GETQUOTA = 0x800007
_Q_SETQUOTA = 0x800008
_Q_GETNEXTQUOTA = 0x800009
_QIF_BLIMITS = 1
_QIF_ILIMITS = 4
#: In what space limits are counted (QIF_DQBLKSIZE), and the highest one that ext4 takes: 2**63 - 1
#: bytes (dqi_max_spc_limit, fs/quota/quota_v2.c).
_BLOCK = 1024
_MOST_BLOCKS = (2**63 - 1) // _BLOCK

# include/uapi/linux/dqblk_xfs.h
_Q_XGETQSTATV = 0x5808
_FS_QSTATV_VERSION1 = 1
_FS_QUOTA_PDQ_ACCT = 0x10
_FS_QUOTA_PDQ_ENFD = 0x20
#: struct fs_quota_statv: version, padding, flags, and much that is not needed; 160 bytes.
_STATV_HEAD = struct.Struct("=bBH")
_STATV_ROOM = 256

#: quotactl_fd(2), include/uapi/asm-generic/unistd.h, since 5.14.
_NR_QUOTACTL_FD = 443

#: What is answered where nothing is counted.
_NO_QUOTA = frozenset(
    (
        *(errno.ENOSYS, errno.ESRCH, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY),
        *(errno.ENOENT, errno.ENODEV, errno.ENOTBLK, errno.EPERM, errno.EACCES),
    )
)


class _NextBlock(ctypes.Structure):
    """struct if_nextdqblk, include/uapi/linux/quota.h; struct if_dqblk is the same without the id."""

    _fields_ = (
        ("bhardlimit", ctypes.c_uint64),
        ("bsoftlimit", ctypes.c_uint64),
        ("curspace", ctypes.c_uint64),
        ("ihardlimit", ctypes.c_uint64),
        ("isoftlimit", ctypes.c_uint64),
        ("curinodes", ctypes.c_uint64),
        ("btime", ctypes.c_uint64),
        ("itime", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
    )


# A second handle on syscall(2), so that its argument types are those of quotactl_fd alone.
_quotactl_fd = ctypes.CDLL(None, use_errno=True).syscall
_quotactl_fd.restype = ctypes.c_long
_quotactl_fd.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)

_quotactl = ctypes.CDLL(None, use_errno=True).quotactl
_quotactl.restype = ctypes.c_int
_quotactl.argtypes = (ctypes.c_uint, ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p)


class Project(NamedTuple):
    """The project that a file is in, and whether what is made in it gets the same."""

    id: int
    inherits: bool


class Counters(NamedTuple):
    """What one project uses and may use, in bytes and inodes; a limit of 0 is none."""

    id: int
    space: int
    inodes: int
    space_limit: int
    inode_limit: int

    @property
    def is_used(self) -> bool:
        """Whether any file carries the number, deleted ones that are still open among them."""
        return bool(self.space or self.inodes)

    @property
    def is_limited(self) -> bool:
        return bool(self.space_limit or self.inode_limit)


class State(NamedTuple):
    """Whether a file system counts what projects use, and whether it keeps their limits."""

    counted: bool
    enforced: bool


def project(fd: int) -> Project:
    """The project of the file `fd`."""
    flags, _, _, number, _ = _get_attributes(fd)
    return Project(number, bool(flags & _FS_XFLAG_PROJINHERIT))


def set_project(fd: int, number: int, *, inherits: bool = True) -> None:
    """Put the file `fd` into a project; what a directory holds already stays where it is.

    EDQUOT where the project's limits do not allow it.
    """
    flags, extent, extents, _, cow = _get_attributes(fd)
    flags = flags | _FS_XFLAG_PROJINHERIT if inherits else flags & ~_FS_XFLAG_PROJINHERIT
    fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags, extent, extents, number, cow))


def _get_attributes(fd: int) -> tuple[int, ...]:
    buffer = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, buffer)
    return _FSXATTR.unpack(buffer)


def state(fd: int) -> State:
    """What the file system does with projects; one that has no such thing does neither."""
    buffer = ctypes.create_string_buffer(_STATV_HEAD.pack(_FS_QSTATV_VERSION1, 0, 0), _STATV_ROOM)
    try:
        _call(_Q_XGETQSTATV, fd, 0, buffer)
    except OSError as error:
        if error.errno not in _NO_QUOTA:
            raise
        return State(counted=False, enforced=False)
    _, _, flags = _STATV_HEAD.unpack_from(buffer)
    return State(counted=bool(flags & _FS_QUOTA_PDQ_ACCT), enforced=bool(flags & _FS_QUOTA_PDQ_ENFD))


def counters(fd: int, number: int) -> Counters:
    """Those of project `number`; all zero when there is nothing of it.

    Needs CAP_SYS_ADMIN in the first user namespace, as everything about quotas does but `state`.
    """
    block = _NextBlock()
    try:
        _call(_Q_GETQUOTA, fd, number, block)
    except OSError as error:
        if error.errno != errno.ENOENT:  # xfs, of a project that it has never seen
            raise
    return _counters(number, block)


def next_counters(fd: int, number: int) -> Counters | None:
    """Those of the first project from `number` on that uses something or has limits."""
    block = _NextBlock()
    try:
        _call(_Q_GETNEXTQUOTA, fd, number, block)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    return _counters(block.id, block)


def set_limits(fd: int, number: int, *, space: int, inodes: int) -> None:
    """Limit project `number` to so many bytes, rounded up as the kernel counts, and inodes.

    0 lifts a limit. What is used already may be more; then only what adds to it is refused.
    """
    block = _NextBlock(
        bhardlimit=min(-(-space // _BLOCK), _MOST_BLOCKS),
        ihardlimit=inodes,
        valid=_QIF_BLIMITS | _QIF_ILIMITS,
    )
    _call(_Q_SETQUOTA, fd, number, block)


def _counters(number: int, block: _NextBlock) -> Counters:
    return Counters(
        id=number,
        space=block.curspace,
        inodes=block.curinodes,
        space_limit=block.bhardlimit * _BLOCK,
        inode_limit=block.ihardlimit,
    )


def _call(command: int, fd: int, number: int, buffer: ctypes.Structure | ctypes.Array[ctypes.c_char]) -> None:
    """quotactl_fd(2) for projects; where that is missing, quotactl(2) with the device."""
    command = command << 8 | _PRJQUOTA  # QCMD in quota.h
    address = ctypes.addressof(buffer)
    while _quotactl_fd(_NR_QUOTACTL_FD, fd, command, number, address) != 0:
        error = ctypes.get_errno()
        if error == errno.ENOSYS:  # of an old kernel, and of a file system without quotas
            _call_device(command, _device(fd), number, address)
            return
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error))


def _call_device(command: int, device: str, number: int, address: int) -> None:
    while _quotactl(command, os.fsencode(device), number, address) != 0:
        error = ctypes.get_errno()
        if error != errno.EINTR:
            raise OSError(error, os.strerror(error), device)


def _device(fd: int) -> str:
    """The block device that the file system of `fd` is on. ENOSYS where there is none."""
    number = os.fstat(fd).st_dev
    try:
        link = os.readlink(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    except FileNotFoundError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    # A slash in a device's name is written as an exclamation mark in sysfs.
    return f"/dev/{os.path.basename(link).replace('!', '/')}"
