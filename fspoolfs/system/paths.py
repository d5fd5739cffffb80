"""A pool's attached root on the host, and the file operations beneath it.

Everything is resolved from the root's descriptor with openat2(2): no symbolic link, planted or not,
is followed, and nothing leads out. Mount points below the root are followed in the parents of a
path, since file systems keep items as mounts of their own; removing, copying and measuring stop at
them. Writing, copying and walking themselves are other modules' work.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from types import TracebackType

from fspoolfs.model.infos import FileInfo, SpaceInfo, UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import attributes, copying, files, measuring, reflink, removal, syscalls
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.filelock import FileLock
from fspoolfs.system.files import failure
from fspoolfs.system.keeper import Keeper
from fspoolfs.system.logfile import HostLog

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: Mode of files that belong to the daemon.
_PRIVATE = 0o600
#: Bits of st_mode that let someone else than the owner write.
_WRITABLE_BY_OTHERS = 0o022


class _Entry:
    """An entry of an open directory; `own` is the descriptor to close afterwards, or -1."""

    __slots__ = ("dir_fd", "name", "own")

    def __init__(self, dir_fd: int, name: str, own: int = -1) -> None:
        self.dir_fd = dir_fd
        self.name = name
        self.own = own

    def __enter__(self) -> _Entry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.own >= 0:
            os.close(self.own)


#: What writing answers where there is no room.
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
#: File systems, by f_type, that write a file's data to the server when it is closed: NFS, SMB, SMB2.
_FLUSHING = frozenset((0x6969, 0x517B, 0xFE534D42, 0xFF534D42))


class HostRoot:
    """A root directory; keeps `fspoolfs.backends.root.RootDirectory`.

    Threads may share it, and one may close it while others work: the storage is let go at once, and
    what they do from then on fails with ENOTDIR.
    """

    def __init__(self, path: str, descriptor: Descriptor) -> None:
        info = os.fstat(descriptor.fd)
        self._path = path
        self._root = descriptor
        self._identity = (info.st_dev, info.st_ino)
        self._trusted: dict[str, Descriptor] = {}
        self._closed = False

    @classmethod
    def open(cls, path: str) -> HostRoot:
        """Open the directory at the absolute `path`, whose own links are followed."""
        if not path.startswith("/"):
            raise failure(errno.EINVAL, path)
        return cls(path.rstrip("/") or "/", Descriptor(os.open(path, _DIRECTORY)))

    @property
    def path(self) -> str:
        """The root's absolute path on this host."""
        return self._path

    @property
    def device(self) -> int:
        """st_dev of the root."""
        return self._identity[0]

    def identity(self) -> tuple[int, int]:
        """(st_dev, st_ino) of the open root."""
        return self._identity

    def still_there(self) -> bool:
        """Whether `path` still leads to this very directory; False also when that cannot be seen."""
        try:
            info = os.stat(self._path)
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == self._identity

    def still_mounted(self) -> bool:
        """The same, and by the mount that was opened: not by a later one of the same file system."""
        if self._closed:
            return False
        try:
            there = os.open(self._path, _HANDLE)
        except OSError:
            return False
        try:
            info = os.fstat(there)
            same = (info.st_dev, info.st_ino) == self._identity
            return same and syscalls.mount_id(there) == syscalls.mount_id(self._root.fd)
        finally:
            os.close(there)

    def mount_id(self) -> int:
        """The id, as in mountinfo, of the mount that the root was opened on."""
        return syscalls.mount_id(self._root.fd)

    def location(self, inside: str) -> str:
        """The absolute path of `inside`, for a person or a symbolic link."""
        return f"{self._path.rstrip('/')}/{inside}" if inside else self._path

    def trust(self, path: str, *, owner: int | None = None) -> None:
        """Keep the directory `path` open: entries directly in it are then reached in one step.

        Whatever is renamed above it later, they stay entries of this directory; so it must belong to
        `owner` (this process's effective user if not said) and be writable for nobody else: EPERM.
        Removing or renaming it ends its use: its entries answer ENOENT until the root is opened anew.
        """
        with self._entry(path) as entry:
            descriptor = Descriptor(syscalls.openat2(entry.dir_fd, entry.name, _DIRECTORY))
        info = os.fstat(descriptor.fd)
        expected = os.geteuid() if owner is None else owner
        if info.st_uid != expected or info.st_mode & _WRITABLE_BY_OTHERS:
            raise failure(errno.EPERM, path)
        self._trusted.setdefault(path, descriptor)

    @property
    def trusted(self) -> tuple[str, ...]:
        """The directories that are kept open."""
        return tuple(self._trusted)

    def stat(self, path: str) -> FileInfo:
        """lstat(2)."""
        with self._entry_or_root(path) as entry:
            return _info(os.stat(entry.name, dir_fd=entry.dir_fd, follow_symlinks=False))

    def entries(self, path: str) -> Iterator[tuple[str, FileInfo]]:
        """Each entry of a directory with its lstat(2), in no order; entries that vanish are left out.

        The directory is opened, and errors are raised, when the first entry is asked for.
        """
        fd = self.open_directory(path)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield entry.name, _info(info)
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """The entries' names, in no order. Names that are not UTF-8 carry surrogates."""
        fd = self.open_directory(path)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def directories(self, path: str) -> set[str]:
        """The names of the entries that are directories; links to one are not."""
        fd = self.open_directory(path)
        try:
            with os.scandir(fd) as entries:
                return {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        finally:
            os.close(fd)

    def read(self, path: str, *, limit: int) -> bytes:
        """A regular file's content; EFBIG above `limit` bytes."""
        with self._entry(path) as entry:
            return files.read_file(entry.dir_fd, entry.name, limit=limit)

    def write(self, path: str, data: bytes, *, replace: bool, durable: bool) -> None:
        """Create a file of mode 0600 with `data`; EEXIST without `replace`, else atomic (rename(2)).

        Durable: file and directory are synced before it returns.
        """
        put = files.replace_file if replace else files.create_file
        with self._entry(path, syncable=durable) as entry:
            put(entry.dir_fd, entry.name, data, mode=_PRIVATE, durable=durable)

    def make_directory(self, path: str, *, mode: int) -> None:
        """mkdir(2) with exactly `mode`, whatever the umask, set-group-id or access control list of
        the parent make of it; parents must exist.
        """
        with self._entry(path) as entry:
            os.mkdir(entry.name, mode, dir_fd=entry.dir_fd)
            try:
                info = os.stat(entry.name, dir_fd=entry.dir_fd, follow_symlinks=False)
                if stat.S_IMODE(info.st_mode) != mode:
                    _set_attributes(entry, mode=mode, owner=None, group=None)
            except OSError:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    os.rmdir(entry.name, dir_fd=entry.dir_fd)
                raise

    def set_attributes(self, path: str, *, mode: int | None, owner: int | None, group: int | None) -> None:
        """chown(2), then chmod(2), of a directory; `None` leaves a value as it is."""
        with self._entry_or_root(path) as entry:
            _set_attributes(entry, mode=mode, owner=owner, group=group)

    def rename(self, source: str, target: str) -> None:
        """rename(2) that never replaces: EEXIST when `target` is there."""
        with self._entry(source) as old, self._entry(target) as new:
            syscalls.rename_no_replace(old.name, new.name, source_fd=old.dir_fd, target_fd=new.dir_fd)

    def exchange(self, one: str, other: str) -> None:
        """Swap two directories in one step (renameat2(2)); EINVAL where the storage cannot."""
        with self._entry(one) as first, self._entry(other) as second:
            syscalls.rename_exchange(first.name, second.name, source_fd=first.dir_fd, target_fd=second.dir_fd)

    def sync_directory(self, path: str) -> None:
        """Make durable which entries a directory has, and what was renamed into it (fsync(2))."""
        fd = self.open_directory(path)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove_file(self, path: str) -> None:
        """unlink(2)."""
        with self._entry(path) as entry:
            os.unlink(entry.name, dir_fd=entry.dir_fd)

    def remove_directory(self, path: str) -> None:
        """rmdir(2)."""
        with self._entry(path) as entry:
            os.rmdir(entry.name, dir_fd=entry.dir_fd)

    def remove_tree(
        self, path: str, progress: Progress, *, release: Callable[[int], bool] | None = None
    ) -> None:
        """Remove a directory and all in it, never leaving it through a link or a mount.

        `release` is what helps where a file system does not let an empty directory go; see `removal`.
        """
        with self._entry(path) as entry:
            removal.remove_tree(entry.dir_fd, entry.name, progress, release=release)

    def copy_tree(self, source: str, target: str, progress: Progress, *, existing: bool = False) -> None:
        """Copy a directory to the new directory `target`, by reflink where the storage can.

        Keeps owner, mode, times, xattrs, hard links, holes and special files. With `existing` the
        target is there already, and empty: ENOTEMPTY. EINVAL for a target inside the source.
        """
        if not source or f"{target}/".startswith(f"{source}/"):
            raise failure(errno.EINVAL, target)
        with self._entry(source) as old, self._entry(target) as new:
            copying.copy_tree(old.dir_fd, old.name, new.dir_fd, new.name, progress, existing=existing)

    def measure(self, path: str, progress: Progress) -> UsageInfo:
        """Walk a directory and count what it holds."""
        with self._entry_or_root(path) as entry:
            return measuring.measure(entry.dir_fd, entry.name, progress)

    def open_log(self, path: str, *, size: int) -> HostLog:
        """Open a log file of `size` bytes, allocated and zeroed durably when it is new.

        What was written to one that is there may not be durable before the first sync.
        """
        with self._entry(path, syncable=True) as entry:
            return HostLog.open(entry.dir_fd, entry.name, size=size)

    def reopen_log(self, path: str, *, size: int, known: bool = False) -> HostLog:
        """The same of one that others write to in turns, without what this host still caches of it.

        One that is `known` to be there and to have its size is not looked at.
        """
        with self._entry(path, syncable=True) as entry:
            if known:
                return HostLog.open_again(entry.dir_fd, entry.name, size=size)
            return HostLog.open(entry.dir_fd, entry.name, size=size, alone=False)

    def try_lock(self, path: str) -> FileLock | None:
        """Lock a file, made if it is missing (flock(2)); `None` while somebody else has it locked."""
        with self._entry(path) as entry:
            return FileLock.take(entry.dir_fd, entry.name)

    @property
    def keeper(self) -> Keeper:
        """Keeps locks by processes of their own."""
        return Keeper()

    def filesystem_magic(self) -> int:
        """f_type of statfs(2): which kind of file system the root is on."""
        return syscalls.filesystem_magic(self._root.fd)

    def supports_reflink(self) -> bool:
        """Whether FICLONE (ioctl_ficlonerange(2)) works among files of this root."""
        return reflink.supported(self._root.fd)

    def sync(self) -> None:
        """Make everything durable that was done before (syncfs(2))."""
        try:
            syscalls.syncfs(self._root.fd)
        except OSError as error:
            if error.errno not in _FULL or self.filesystem_magic() not in _FLUSHING:
                raise
            # It is told here once that somebody's file did not get onto a full server. Ours were flushed when
            # they were closed, and told it then.
            syscalls.syncfs(self._root.fd)

    def space(self) -> SpaceInfo:
        """The file system's numbers."""
        numbers = os.fstatvfs(self._root.fd)
        if self._closed:  # they are those of another file system
            raise failure(errno.ENOTDIR, self._path)
        return SpaceInfo(
            capacity=numbers.f_blocks * numbers.f_frsize,
            allocation=(numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize,
            available=numbers.f_bavail * numbers.f_frsize,
        )

    def close(self) -> None:
        """Give up descriptors; the root stays attached. Repeating it changes nothing."""
        self._closed = True
        self._root.retire()
        for descriptor in self._trusted.values():
            descriptor.retire()

    def _entry(self, path: str, *, syncable: bool = False) -> _Entry:
        """Resolve the parents of `path`. `syncable`: the directory's descriptor allows fsync(2)."""
        parent, slash, name = path.rpartition("/")
        if not name or name in (".", "..") or "\0" in path:
            raise failure(errno.EINVAL, path)
        if not slash:
            return _Entry(self._root.fd, name)
        trusted = self._trusted.get(parent)
        if trusted is not None:
            return _Entry(trusted.fd, name)
        if not parent or parent.startswith("/") or ".." in parent.split("/"):
            raise failure(errno.EINVAL, path)
        fd = syscalls.openat2(self._root.fd, parent, _DIRECTORY if syncable else _HANDLE)
        return _Entry(fd, name, fd)

    def _entry_or_root(self, path: str) -> _Entry:
        return self._entry(path) if path else _Entry(self._root.fd, ".")

    def open_directory(self, path: str) -> int:
        """A descriptor (O_RDONLY) of a directory, for the caller to close."""
        trusted = self._trusted.get(path)
        if trusted is not None:
            return os.open(".", _DIRECTORY, dir_fd=trusted.fd)
        with self._entry_or_root(path) as entry:
            return syscalls.openat2(entry.dir_fd, entry.name, _DIRECTORY)


def _info(info: os.stat_result) -> FileInfo:
    return FileInfo(
        mode=info.st_mode,
        owner=info.st_uid,
        group=info.st_gid,
        inode=info.st_ino,
        size=info.st_size,
        mtime_ns=info.st_mtime_ns,
        ctime_ns=info.st_ctime_ns,
    )


def _set_attributes(entry: _Entry, *, mode: int | None, owner: int | None, group: int | None) -> None:
    # O_PATH needs no permission on the directory itself, and its path under /proc leads nowhere else.
    fd = os.open(entry.name, _HANDLE, dir_fd=entry.dir_fd)
    try:
        path = attributes.proc_path(fd)
        if owner is not None or group is not None:
            os.chown(path, -1 if owner is None else owner, -1 if group is None else group)
        if mode is not None:
            os.chmod(path, mode)
    finally:
        os.close(fd)
