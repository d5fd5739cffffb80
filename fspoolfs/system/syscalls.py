"""System calls that `os` does not have. One function, one call; failures are `OSError`.

Numbers and constants come from the kernel headers named beside them and are the same on every
architecture, save where it is said. Nothing here knows what the calls are used for.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat

_libc = ctypes.CDLL(None, use_errno=True)

#: openat2(2), include/uapi/asm-generic/unistd.h; calls since 5.1 have one number everywhere.
_NR_OPENAT2 = 437

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

#: How everything below a pool's root is resolved: links are refused and nothing leads out.
RESOLVE_SAFE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

#: include/uapi/linux/fs.h
RENAME_NOREPLACE = 0x01
RENAME_EXCHANGE = 0x02
#: _IOW(0x94, 9, int), include/uapi/linux/fs.h
FICLONE = 0x40049409

# include/uapi/linux/fs.h, include/linux/fs.h
MNT_FORCE = 0x01
MNT_DETACH = 0x02
UMOUNT_NOFOLLOW = 0x08

#: include/uapi/linux/sched.h
CLONE_FS = 0x0200

#: FUSE_SUPER_MAGIC, include/uapi/linux/magic.h: what `filesystem_magic` tells of every FUSE mount.
FUSE_MAGIC = 0x65735546

# What file systems and kernels answer that do not know a call or one of its flags.
_UNKNOWN = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))


class _OpenHow(ctypes.Structure):
    """struct open_how, include/uapi/linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_SIZE = ctypes.sizeof(_OpenHow)

# A second handle on syscall(2), so that its argument types are those of openat2 alone.
_openat2 = ctypes.CDLL(None, use_errno=True).syscall
_openat2.restype = ctypes.c_long
_openat2.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(_OpenHow),
    ctypes.c_size_t,
)

_renameat2 = _libc.renameat2
_renameat2.restype = ctypes.c_int
_renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

_syncfs = _libc.syncfs
_syncfs.restype = ctypes.c_int
_syncfs.argtypes = (ctypes.c_int,)


class _Statfs(ctypes.Structure):
    """The beginning of struct statfs, include/uapi/asm-generic/statfs.h; the rest is only room."""

    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_char * 248))


_fstatfs = _libc.fstatfs
_fstatfs.restype = ctypes.c_int
_fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_Statfs))

_umount2 = _libc.umount2
_umount2.restype = ctypes.c_int
_umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)

# With offsets of 64 bits everywhere; libraries other than glibc have no other kind.
_fallocate = _libc.fallocate64 if hasattr(_libc, "fallocate64") else _libc.fallocate
_fallocate.restype = ctypes.c_int
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

_unshare = _libc.unshare
_unshare.restype = ctypes.c_int
_unshare.argtypes = (ctypes.c_int,)


def _failure(path: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def _encode(path: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        # C would see a shorter, different path.
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    return encoded


def openat2(dir_fd: int, path: str, flags: int, mode: int = 0, resolve: int = RESOLVE_SAFE) -> int:
    """openat2(2): a descriptor, close-on-exec, resolved under the rules in `resolve`.

    Raises `OSError`: ELOOP for a symbolic link, EXDEV where the path leads out of `dir_fd` or,
    with `RESOLVE_NO_XDEV`, over a mount point of any kind, a bind mount of the same file system
    included. A kernel before 5.6 gets a walk that keeps `RESOLVE_SAFE` whatever is asked.
    """
    encoded = _encode(path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd: int = _openat2(_NR_OPENAT2, dir_fd, encoded, ctypes.byref(how), _HOW_SIZE)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            return walk_open(dir_fd, path, flags, mode, resolve)
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), path)


def walk_open(dir_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """What `openat2` does on kernels that lack it: one component at a time, links refused."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    origin = mount_id(dir_fd) if resolve & RESOLVE_NO_XDEV else None
    here = os.dup(dir_fd)
    for depth, part in enumerate(parts or ["."], start=1):
        last = depth >= len(parts)
        step = flags | os.O_CLOEXEC if last else os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            there = os.open(part, step | os.O_NOFOLLOW, mode, dir_fd=here)
        finally:
            os.close(here)
        here = there
        try:
            _check_step(here, path, link=last and flags & os.O_NOFOLLOW != 0, origin=origin)
        except OSError:
            os.close(here)
            raise
    return here


def _check_step(fd: int, path: str, *, link: bool, origin: int | None) -> None:
    """Raise when `fd` is a link and none is wanted, or lies beyond the mount `origin`."""
    if not link and stat.S_ISLNK(os.fstat(fd).st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if origin is not None and mount_id(fd) != origin:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)


def mount_id(fd: int) -> int:
    """The id, as in mountinfo, of the mount that `fd` was opened on (proc(5), fdinfo)."""
    info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The field is one of the first; what some kinds of files add comes after it.
        text = os.read(info, 4096)
    finally:
        os.close(info)
    _, found, rest = text.partition(b"\nmnt_id:")
    if not found:
        raise OSError(errno.EOPNOTSUPP, "the kernel does not tell mount ids")
    return int(rest.partition(b"\n")[0])


def rename_no_replace(source: str, target: str, *, source_fd: int, target_fd: int) -> None:
    """renameat2(2) with RENAME_NOREPLACE: EEXIST when `target` is there, whatever it is.

    A file system that knows no flags (many network and FUSE ones) gets a look and a rename: there
    another writer can come between, so such directories need a lock of the caller's.
    """
    old, new = _encode(source), _encode(target)
    while _renameat2(source_fd, old, target_fd, new, RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        if number in _UNKNOWN:
            _look_and_rename(source, target, source_fd=source_fd, target_fd=target_fd)
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number), source, None, target)


def _look_and_rename(source: str, target: str, *, source_fd: int, target_fd: int) -> None:
    try:
        os.stat(target, dir_fd=target_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)


def rename_exchange(one: str, other: str, *, source_fd: int, target_fd: int) -> None:
    """renameat2(2) with RENAME_EXCHANGE: the two names change what they refer to, in one step.

    Raises `OSError` with EINVAL where the file system or the kernel cannot.
    """
    while _renameat2(source_fd, _encode(one), target_fd, _encode(other), RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            number = errno.EINVAL if number in _UNKNOWN else number
            raise OSError(number, os.strerror(number), one, None, other)


def filesystem_magic(fd: int) -> int:
    """f_type of fstatfs(2), as in include/uapi/linux/magic.h."""
    buffer = _Statfs()
    while _fstatfs(fd, ctypes.byref(buffer)) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _failure()
    return int(buffer.type) & 0xFFFFFFFF


def syncfs(fd: int) -> None:
    """syncfs(2): what was written to the file system of `fd` is durable when this returns.

    Since 5.8 errors of earlier write-back are reported too. Most FUSE file systems, sshfs among
    them, do nothing here: only fsync(2) of each file reaches their server.
    """
    while _syncfs(fd) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _failure()


def clone_file(target_fd: int, source_fd: int) -> None:
    """ioctl_ficlone(2): `target_fd` shares all of the extents of `source_fd`."""
    fcntl.ioctl(target_fd, FICLONE, source_fd)


def fallocate(fd: int, offset: int, size: int) -> None:
    """fallocate(2): space for a part of a file, which is made as long as that.

    Raises `OSError` with EOPNOTSUPP where the file system cannot; posix_fallocate(3) would write there.
    """
    while _fallocate(fd, 0, offset, size) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _failure()


def unmount(path: str, flags: int) -> None:
    """umount2(2)."""
    encoded = _encode(path)
    while _umount2(encoded, flags) != 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _failure(path)


def unshare_files() -> None:
    """unshare(2) with CLONE_FS: umask, working and root directory are this thread's own from now on."""
    if _unshare(CLONE_FS) != 0:
        raise _failure()


def has_capability(number: int) -> bool:
    """Whether this thread has a capability (capabilities(7)) in force, by its number."""
    with open("/proc/thread-self/status", "rb") as status:
        _, _, rest = status.read().partition(b"\nCapEff:")
    return bool(int(rest.split(None, 1)[0], 16) >> number & 1)
