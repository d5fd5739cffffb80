"""Carrying owner, mode, times and extended attributes from one file to its copy.

Files are named by descriptors, or by `proc_path` where those are O_PATH, so that each is exactly
one inode. Contents and names are not this module's business.
"""

from __future__ import annotations

import errno
import os
import stat

_ACL_ACCESS = "system.posix_acl_access"
_ACL_DEFAULT = "system.posix_acl_default"

#: What storage without extended attributes, or without this one, answers: xattr(7).
_ABSENT = frozenset((errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS))
# Attributes that the kernel or the storage own are copied where that is allowed.
_REFUSED = frozenset((errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL))


def proc_path(fd: int) -> str:
    """A path to the inode behind `fd`, whatever kind of descriptor it is (proc(5), magic links)."""
    return f"/proc/self/fd/{fd}"


def copy_attributes(source: int | str, target: int | str, info: os.stat_result) -> None:
    """Give `target`, of the same type, the attributes of `source`, whose stat is `info`.

    As root the owner must succeed; other users keep what they may, and lose set-id bits where they
    cannot keep the owner. What a descriptor shows to be right already is left alone: looking costs
    less than a change. Times come last, since everything else changes them. Raises `OSError` also
    for an extended attribute of a user (user.*) that cannot be kept.
    """
    mode = stat.S_IMODE(info.st_mode)
    made = os.fstat(target) if isinstance(target, int) else None
    right = made is not None and (made.st_uid, made.st_gid) == (info.st_uid, info.st_gid)
    if not right and not _copy_owner(target, info):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    # After the owner, since chown(2) drops security.capability; before the mode, which may forbid
    # us to write, and which agrees with the access control list as it did in the source.
    if _copy_xattrs(source, target) or made is None or stat.S_IMODE(made.st_mode) != mode:
        right = False
    if not right and not stat.S_ISLNK(info.st_mode):
        os.chmod(target, mode)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def drop_inherited_lists(directory: int) -> None:
    """Free a new directory of the access control lists that it inherited, so that it hands down none."""
    for name in (_ACL_DEFAULT, _ACL_ACCESS):
        try:
            os.removexattr(directory, name)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise


def _copy_owner(target: int | str, info: os.stat_result) -> bool:
    try:
        os.chown(target, info.st_uid, info.st_gid)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        return False
    return True


def _copy_xattrs(source: int | str, target: int | str) -> bool:
    """Whether there were any."""
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return False
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno == errno.ENODATA:  # removed meanwhile
                continue
            if name.startswith("user.") or error.errno not in _REFUSED:
                raise
    return bool(names)
