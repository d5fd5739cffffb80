"""Removing a directory tree that its owner may be changing, or may have built to do harm.

Links are unlinked, never followed; mount points are left alone and reported; depth and width are
bounded by the walk (`fspoolfs.system.walking`). What cannot be removed does not keep the rest from
being removed. Works as root and, for trees of one's own, as any user.
"""

from __future__ import annotations

import errno
import os

from fspoolfs.errors import StorageError
from fspoolfs.progress import Progress
from fspoolfs.system import syscalls, walking
from fspoolfs.system.walking import Descent

#: How often one directory is read again because something is left in it: file systems may skip
#: entries while others are being removed (readdir(3p)), and owners may add some.
_PASSES = 64
#: How often the walk begins again at the top because directories were moved away under it.
_RESTARTS = 64
#: Entries between two reports of progress.
_BATCH = 64

_NOT_EMPTY = frozenset((errno.ENOTEMPTY, errno.EEXIST))
_OWNER_ALL = 0o700


def remove_tree(dir_fd: int, name: str, progress: Progress) -> None:
    """Remove `name` in `dir_fd` and, where it is a directory, all in it.

    Raises `FileNotFoundError` when there is no such entry, and `StorageError` at the end when
    something is left: EBUSY for a mount point, else what the first refusal was (EPERM for an
    immutable file). `CancelledError` leaves the rest where it is.
    """
    progress.begin("purging", unit="files")
    _Removal(dir_fd, name, progress).run()


#: What an entry answers that somebody else has removed; the second is said by file systems of servers.
_GONE = frozenset((errno.ENOENT, errno.ESTALE))


class _Level:
    """What is known of one directory on the way: `failed` when something in it has to stay."""

    __slots__ = ("failed", "passes")

    def __init__(self) -> None:
        self.failed = False
        self.passes = 0


class _Removal:
    """One removal. `_failures` are counted, the first is kept for the caller."""

    def __init__(self, dir_fd: int, name: str, progress: Progress) -> None:
        self._dir_fd = dir_fd
        self._name = name
        self._progress = progress
        self._untold = 0
        self._visits = 0
        self._failures = 0
        self._first: StorageError | None = None
        self._descent: Descent
        self._levels: list[_Level] = []

    def run(self) -> None:
        os.stat(self._name, dir_fd=self._dir_fd, follow_symlinks=False)
        for _ in range(_RESTARTS):
            self._failures, self._first = 0, None
            self._attempt()
            if self._failures or self._is_gone():
                break
        else:
            self._fail(self._name, errno.EBUSY, "it keeps being changed")
        self._progress.advance(self._untold)
        if self._first is not None:
            more = f", and {self._failures - 1} more" if self._failures > 1 else ""
            raise StorageError(f"{self._first}{more}", errno=self._first.errno)

    def _is_gone(self) -> bool:
        try:
            os.stat(self._name, dir_fd=self._dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def _attempt(self) -> None:
        """Remove what can be; directories that were moved away on the way are left for another one."""
        try:
            self._descent = self._open_top()
        except OSError as error:
            if error.errno in walking.NOT_A_DIRECTORY:
                self._unlink_top()
            elif error.errno not in _GONE:
                self._refused(self._name, error)
            return
        with self._descent:
            try:
                self._sweep()
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise

    def _open_top(self) -> Descent:
        try:
            return Descent(self._dir_fd, self._name)
        except PermissionError:
            _open_up(self._dir_fd, self._name)
            return Descent(self._dir_fd, self._name)

    def _unlink_top(self) -> None:
        try:
            os.unlink(self._name, dir_fd=self._dir_fd)
            self._untold += 1
        except (FileNotFoundError, IsADirectoryError):
            return  # changed once more: the next attempt sees what it is now
        except OSError as error:
            self._refused(self._name, error)

    def _sweep(self) -> None:
        """Depth first: the files of a directory, then its subdirectories, then itself."""
        descent = self._descent
        self._levels = [_Level()]
        self._clear()
        while True:
            pending = descent.here.pending
            if pending:
                self._visit(pending.pop())
            elif self._finish():
                if descent.at_top:
                    return
                descent.leave()
                if self._levels.pop().failed:
                    self._levels[-1].failed = True

    def _visit(self, name: str) -> None:
        """Go into a subdirectory and clear it."""
        self._tick(0)
        try:
            self._enter(name)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in walking.NOT_A_DIRECTORY:
                self._unlink(name)
            else:
                self._stuck(name, error)
            return
        self._levels.append(_Level())
        self._clear()

    def _enter(self, name: str) -> None:
        try:
            self._descent.enter(name)
        except PermissionError:
            _open_up(self._descent.here.fd, name)
            self._descent.enter(name)

    def _clear(self) -> bool:
        """Unlink all that is no directory; whether there was anything at all."""
        here = self._descent.here
        seen = False
        try:
            if here.info.st_mode & _OWNER_ALL != _OWNER_ALL and here.info.st_uid == os.geteuid() != 0:
                os.fchmod(here.fd, _OWNER_ALL)
            for name in walking.split(here):
                seen = True
                self._unlink(name)
        except OSError as error:
            if error.errno in _GONE:
                return False  # the directory itself was removed
            self._stuck("", error)
        return seen or bool(here.pending)

    def _unlink(self, name: str) -> None:
        here = self._descent.here
        try:
            os.unlink(name, dir_fd=here.fd)
        except IsADirectoryError:
            here.pending.append(name)
        except OSError as error:
            if error.errno in _GONE:
                self._tick(0)
            else:
                self._stuck(name, error)
        else:
            self._tick(1)

    def _finish(self) -> bool:
        """Remove the directory itself; False when there is more to do in it first."""
        descent, level = self._descent, self._levels[-1]
        if level.failed:
            return True
        above = self._dir_fd if descent.at_top else descent.parent().fd
        name = descent.here.name
        try:
            os.rmdir(name, dir_fd=above)
        except OSError as error:
            if error.errno in _GONE:
                return True
            if error.errno in _NOT_EMPTY and level.passes < _PASSES:
                level.passes += 1
                # Nothing in it means that the name now leads to another directory: whoever reads
                # the parent again finds that one.
                return not self._clear()
            # A link in its place is found by the parent's next pass too.
            if error.errno != errno.ENOTDIR:
                self._stuck("", error)
            return True
        self._tick(1)
        return True

    def _tick(self, removed: int) -> None:
        self._untold += removed
        self._visits += 1
        if self._visits % _BATCH == 0:
            told, self._untold = self._untold, 0
            self._progress.advance(told)

    def _stuck(self, name: str, error: OSError) -> None:
        """Something in `here`, or itself, has to stay."""
        self._levels[-1].failed = True
        self._refused(self._descent.describe(name), error)

    def _refused(self, place: str, error: OSError) -> None:
        # A mount point: rmdir(2) and unlink(2) say EBUSY, the walk EXDEV.
        if error.errno in (errno.EBUSY, errno.EXDEV):
            self._fail(place, errno.EBUSY, "it is a mount point")
        else:
            number = error.errno or errno.EIO
            self._fail(place, number, os.strerror(number))

    def _fail(self, place: str, number: int, why: str) -> None:
        self._failures += 1
        if self._first is None:
            self._first = StorageError(f"{place} could not be removed: {why}", errno=number)


def _open_up(dir_fd: int, name: str) -> None:
    """Give the owner of a directory, who is us, the right to read and change it."""
    fd = syscalls.openat2(dir_fd, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, 0, walking.INSIDE)
    try:
        os.chmod(f"/proc/self/fd/{fd}", _OWNER_ALL)
    finally:
        os.close(fd)
