"""The one copy engine: a directory tree, with all that makes up its files.

The source may be changing and hostile: links are copied as links, fifos and devices never opened,
mount points not entered, depth bounded by the walk. The target must lie where nobody else can
write. At most three chains of `walking.OPEN_LEVELS` directories and five descriptors more are open.
Nothing is durable before a sync; after a failure the caller removes what there is of the target.
"""

from __future__ import annotations

import errno
import math
import os
import stat
import time

from fspoolfs.errors import StorageError
from fspoolfs.progress import Progress
from fspoolfs.system import attributes, measuring, syscalls, walking
from fspoolfs.system.hardlinks import HardLinks
from fspoolfs.system.transfer import Transfer
from fspoolfs.system.walking import Descent

#: Only the owner, who is us, sees a directory before it is complete.
_UNFINISHED = 0o700
#: What we need of a file whose attributes are not set yet.
_WRITABLE = 0o600
#: What stands for a mount point, whose own directory cannot be seen.
_MOUNT_POINT_MODE = 0o755

_READ = os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: Seconds after which a copy counts what there is to copy.
_LONG = 0.25

_GONE = frozenset((errno.ENOENT, errno.ESTALE))


def copy_tree(
    src_dir_fd: int,
    src_name: str,
    dst_dir_fd: int,
    dst_name: str,
    progress: Progress,
    *,
    existing: bool = False,
) -> None:
    """Copy the directory `src_name` to the new directory `dst_name`.

    With `existing` the target was made before, by whom it needs to be a particular one, and is empty.

    Keeps owner, mode, access and modification times in nanoseconds, extended attributes and access
    control lists, hard links inside the tree, holes, links, fifos, sockets, devices. Contents are
    shared where the storage can. A user who is not root keeps what he may. A mounted directory is
    copied as an empty one, a mounted file not at all; what vanishes on the way is left out.

    The progress counts bytes, in the phase that was begun before, or "copying"; when that takes long, a
    count of what there is to copy comes between.

    Raises `OSError` when the source is no directory or `dst_name` exists (with `existing`: holds
    something), `StorageError` for what fails later (EBUSY: directories were moved away under the walk),
    `CancelledError`.
    """
    progress.begin(progress.phase or "copying", unit="bytes")
    total = _Total(src_dir_fd, src_name, progress)
    with Descent(src_dir_fd, src_name) as source:
        if not existing:
            os.mkdir(dst_name, _UNFINISHED, dir_fd=dst_dir_fd)
        with Descent(dst_dir_fd, dst_name) as target:
            if existing:
                os.chmod(target.here.fd, _UNFINISHED)
                if os.listdir(target.here.fd):
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), dst_name)
            _Copy(source, target, progress, total).run()


class _Total:
    """Finds out how much there is to copy, for a percentage, once it turns out that copying takes long.

    Counting first would make a short copy, or one that shares its blocks, longer by a twentieth.
    """

    def __init__(self, dir_fd: int, name: str, progress: Progress) -> None:
        self._dir_fd = dir_fd
        self._name = name
        self._progress = progress
        self._due = time.monotonic() + _LONG

    def tell(self) -> None:
        """To be called again and again."""
        if time.monotonic() < self._due:
            return
        self._due = math.inf
        progress = self._progress
        phase, done = progress.phase, progress.done
        try:
            total: int | None = measuring.measure(self._dir_fd, self._name, progress).allocation
        except (OSError, StorageError):
            total = None  # the copy itself meets the same trouble, or there is none any more
        progress.begin(phase, unit="bytes", total=total)
        progress.advance(done)


class _Copy:
    """One copy: two descents in step."""

    def __init__(self, source: Descent, target: Descent, progress: Progress, total: _Total) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._total = total
        self._transfer = Transfer(progress, total.tell)
        self._links = HardLinks(target.here.fd)
        self._current = ""

    def run(self) -> None:
        try:
            attributes.drop_inherited_lists(self._target.here.fd)
            self._walk()
        except OSError as error:
            what = f"copy {self._source.describe(self._current)}"
            if error.errno == errno.ESTALE:
                raise StorageError(f"{what}: it was moved meanwhile; try again", errno=errno.EBUSY) from error
            raise StorageError.from_os(what, error) from error
        finally:
            self._links.close()

    def _walk(self) -> None:
        source = self._source
        self._copy_entries()
        while True:
            self._progress.advance(0)
            if source.here.pending:
                self._visit(source.here.pending.pop())
            elif source.at_top:
                self._links.remove()
                self._complete_directory()
                return
            else:
                # While `here` can still be searched: its final mode may forbid the way up.
                source.parent()
                self._target.parent()
                self._complete_directory()
                source.leave()
                self._target.leave()

    def _visit(self, name: str) -> None:
        self._current = name
        try:
            self._source.enter(name)
        except OSError as error:
            if error.errno in walking.NOT_A_DIRECTORY:
                self._copy_entry(name)
            elif error.errno == errno.EXDEV:
                self._stand_in(name)
            elif error.errno not in _GONE:
                raise
            return
        os.mkdir(name, _UNFINISHED, dir_fd=self._target.here.fd)
        self._target.enter(name)
        self._copy_entries()

    def _copy_entries(self) -> None:
        """Copy what in `here` is no directory."""
        for name in walking.split(self._source.here):
            self._current = name
            self._copy_entry(name)
            self._progress.advance(0)
            self._total.tell()
        self._current = ""

    def _complete_directory(self) -> None:
        here = self._source.here
        attributes.copy_attributes(here.fd, self._target.here.fd, here.info)

    def _stand_in(self, name: str) -> None:
        """Make an empty directory in the place of a mount point, with the owner of its parent."""
        here = self._source.here.info
        os.mkdir(name, _MOUNT_POINT_MODE, dir_fd=self._target.here.fd)
        if os.geteuid() == 0:
            os.chown(name, here.st_uid, here.st_gid, dir_fd=self._target.here.fd, follow_symlinks=False)

    def _copy_entry(self, name: str) -> None:
        try:
            fd = syscalls.openat2(self._source.here.fd, name, _PATH, 0, walking.INSIDE)
        except OSError as error:
            if error.errno not in _GONE and error.errno != errno.EXDEV:
                raise
            return
        try:
            info = os.fstat(fd)
            above = self._target.here.fd
            if stat.S_ISDIR(info.st_mode):
                self._source.here.pending.append(name)
                return
            linked = info.st_nlink > 1
            if linked and self._links.link(info, name, dir_fd=above):
                return
            if self._copy_inode(fd, name, info) and linked:
                self._links.remember(info, name, dir_fd=above)
        finally:
            os.close(fd)

    def _copy_inode(self, fd: int, name: str, info: os.stat_result) -> bool:
        """Copy the one inode behind the O_PATH descriptor `fd`; False when it is gone."""
        if stat.S_ISREG(info.st_mode):
            return self._copy_file(fd, name, info)
        above = self._target.here.fd
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink("", dir_fd=fd), name, dir_fd=above)
        else:
            os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=above)
        made = os.open(name, _PATH, dir_fd=above)
        try:
            attributes.copy_attributes(attributes.proc_path(fd), attributes.proc_path(made), info)
        finally:
            os.close(made)
        return True

    def _copy_file(self, fd: int, name: str, info: os.stat_result) -> bool:
        try:
            source = _reopen(fd)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            return False
        try:
            # Nobody else gets at it before its directory is complete, and most need no other mode then.
            mode = info.st_mode & 0o777 | _WRITABLE
            target = os.open(name, _CREATE, mode, dir_fd=self._target.here.fd)
            try:
                self._transfer.copy(source, target, info.st_size)
                attributes.copy_attributes(source, target, info)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return True


def _reopen(fd: int) -> int:
    """Open the regular file behind an O_PATH descriptor, leaving its access time alone if we may."""
    path = attributes.proc_path(fd)
    try:
        return os.open(path, _READ)
    except PermissionError:
        # O_NOATIME is for the owner and for root: open(2).
        return os.open(path, _READ & ~os.O_NOATIME)
