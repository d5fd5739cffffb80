"""Directories whose files appear to be others': idmapped mounts (mount_setattr(2), Linux 5.12).

The kernel takes the map from a user namespace, which is made for that by a process that does
nothing else. The mount keeps it from then on.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress

from fspoolfs.errors import StorageError, UnsupportedError
from fspoolfs.model.definitions import IdMap, IdRange
from fspoolfs.system import command, mount_api, syscalls

#: Passable for everyone, to be listed by nobody.
_MODE = 0o711
#: Repeats its standard input in a user namespace of its own until that ends.
_ARGV = ("unshare", "--user", "--", "cat")
_SIGN = b"\n"


class MappedMounts:
    """Shows directories with mapped ids elsewhere, nosuid and nodev. Threads may share it; needs root."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: What this process has mounted where: device and inode of the directory, and the map.
        self._shown: dict[str, tuple[int, int, IdMap]] = {}

    def check(self, fd: int, idmap: IdMap) -> None:
        """Try it with the directory behind `fd` and leave nothing.

        Raises `UnsupportedError` where this kernel or its file system cannot.
        """
        os.close(_mapped(fd, idmap))

    def show(self, fd: int, at: str, idmap: IdMap) -> None:
        """Mount the directory behind `fd` at `at`, made if missing, unless this process has done so.

        Raises `UnsupportedError` or `OSError`.
        """
        info = os.fstat(fd)
        wanted = (info.st_dev, info.st_ino, idmap)
        with self._lock:
            if self._shown.get(at) == wanted and _is_at(at, info):
                return
            self._hide(at)
            tree = _mapped(fd, idmap)
            try:
                for directory in (os.path.dirname(os.path.dirname(at)), os.path.dirname(at), at):
                    with suppress(FileExistsError):
                        os.mkdir(directory, _MODE)
                mount_api.move_to_path(tree, at)
            finally:
                os.close(tree)
            self._shown[at] = wanted

    def hide(self, at: str) -> None:
        """Take away what is mounted at `at`, used or not, and the directory; it may be gone."""
        with self._lock:
            self._hide(at)

    def hide_all(self, directory: str) -> None:
        """Do that with all that is in a directory, whoever has put it there, and with the directory."""
        with self._lock:
            try:
                names = os.listdir(directory)
            except FileNotFoundError:
                return
            for name in names:
                self._hide(os.path.join(directory, name))
            os.rmdir(directory)

    def _hide(self, at: str) -> None:
        self._shown.pop(at, None)
        if not os.path.lexists(at):
            return
        with suppress(OSError):  # EINVAL: nothing is mounted there any more
            while True:
                syscalls.unmount(at, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        os.rmdir(at)


def _is_at(at: str, info: os.stat_result) -> bool:
    try:
        there = os.stat(at)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (info.st_dev, info.st_ino)


def _mapped(fd: int, idmap: IdMap) -> int:
    """Another mount of a directory, which is nowhere yet. Raises `UnsupportedError`."""
    try:
        tree = mount_api.copy_tree(fd)
    except OSError as error:
        raise UnsupportedError(f"this daemon may not mount directories: {error.strerror}") from error
    try:
        namespace = _user_namespace(idmap)
        try:
            mount_api.map_ids(tree, mount_api.NOSUID | mount_api.NODEV, namespace)
        finally:
            os.close(namespace)
    except OSError as error:
        os.close(tree)
        raise UnsupportedError(
            f"this kernel, or the file system of the pool, cannot map ids in a mount: {error.strerror}"
        ) from error
    except BaseException:
        os.close(tree)
        raise
    return tree


def _user_namespace(idmap: IdMap) -> int:
    """A descriptor of a new user namespace with that map; no process is left in it."""
    words = [command.find(_ARGV[0]), *_ARGV[1:-1], command.find(_ARGV[-1])]
    if None in words:
        raise UnsupportedError(f"{_ARGV[0]} or {_ARGV[-1]} is not installed")
    with subprocess.Popen(
        [word for word in words if word is not None],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # An answer tells that the namespace is there.
            with suppress(BrokenPipeError):
                process.stdin.write(_SIGN)
            if process.stdout.read(1) != _SIGN:
                raise UnsupportedError("no user namespace can be made here; see user_namespaces(7)")
            for name, ranges in (("uid_map", idmap.users), ("gid_map", idmap.groups)):
                _write(f"/proc/{process.pid}/{name}", _lines(ranges))
            return os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError.from_os("map the ids of a user namespace", error) from error
        finally:
            process.stdin.close()


def _write(path: str, data: bytes) -> None:
    """In one piece, as the kernel demands."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def _lines(ranges: Iterable[IdRange]) -> bytes:
    return "".join(f"{one.start} {one.target} {one.count}\n" for one in ranges).encode()
