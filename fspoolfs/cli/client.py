"""The control tree as commands see it: found among the mounts, read, written, and asked why it refused.

Everything here is done with plain files, so a command can do what its user can do in a shell.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fspoolfs import config, mountpoint
from fspoolfs.errors import AccessError, FspoolError, InProgressError, NotFoundError
from fspoolfs.names import check_name

#: Names the control tree for all commands of a shell.
VARIABLE: Final = "FSPOOLFS_MOUNT"
#: The most that one read(2) of a control file brings: more than any but a long list of users holds.
_CHUNK: Final = 1 << 16


def find(chosen: Path | None = None) -> Tree:
    """The tree at `chosen`, or at $FSPOOLFS_MOUNT, the default mount point, or the only one that is mounted.

    Raises `NotFoundError` where none is, or several are.
    """
    named = chosen or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        return Tree.at(named)
    mounted = mountpoint.trees()
    default = mountpoint.resolved(config.defaults().mountpoint)
    if default in mounted:
        return Tree.at(default)
    if not mounted:
        raise NotFoundError("no control tree is mounted here; `fspoolfs mount` mounts one")
    if len(mounted) > 1:
        listed = ", ".join(map(str, mounted))
        raise NotFoundError(f"{len(mounted)} control trees are mounted; choose one by --mount: {listed}")
    return Tree.at(mounted[0])


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of the control tree. `what` names it in sentences, `teller` has its `last_error`."""

    path: Path
    what: str
    teller: Path

    def read(self, name: str) -> str:
        """What the file `name` holds. Raises `FspoolError`."""
        with self._looking(name):
            return read_file(self.path / name)

    def value(self, name: str) -> str:
        """The same without the newline at its end."""
        return self.read(name).rstrip("\n")

    def link(self, name: str) -> str:
        """Where the symbolic link `name` leads."""
        with self._looking(name):
            return os.readlink(self.path / name)

    def names(self, directory: str) -> list[str]:
        """What the directory `directory` in here holds, sorted."""
        with self._looking(directory):
            return sorted(os.listdir(self.path / directory))

    def has(self, name: str) -> bool:
        with self._looking(name):
            try:
                os.lstat(self.path / name)
            except FileNotFoundError:
                return False
            return True

    def write(self, name: str, text: str | bytes) -> None:
        """Write `text` into the file `name` as one request; return when it was carried out.

        Raises `InProgressError` when it goes on as a job, and `FspoolError` with the object's own sentence.
        """
        with self._looking(name):
            descriptor = os.open(self.path / name, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        with self._asking():
            try:
                data = memoryview(text.encode() if isinstance(text, str) else text)
                while data:
                    data = data[os.write(descriptor, data) :]
            except BaseException:
                # It is told at the end of a document, too, what is wrong with it.
                with suppress(OSError):
                    os.close(descriptor)
                raise
            os.close(descriptor)

    def make(self, name: str, mode: int = 0o777) -> None:
        """Make the directory `name`, a path from here."""
        if self.has(name):
            raise FspoolError(f"{self.what} has {_last(name)} already", errno=errno.EEXIST)
        with self._asking():
            os.mkdir(self.path / name, mode)

    def remove(self, name: str) -> None:
        """Remove the directory `name`, a path from here."""
        with self._asking():
            os.rmdir(self.path / name)

    def rename(self, name: str, new: str) -> None:
        """Rename one directory; both are paths from here."""
        with self._asking():
            os.rename(self.path / name, self.path / new)

    def last_error(self) -> str:
        """The sentence about the last request that failed, or nothing."""
        try:
            return read_file(self.teller / "last_error").strip()
        except OSError:
            return ""

    @contextmanager
    def _looking(self, name: str) -> Iterator[None]:
        """What the kernel answers before the daemon is asked for anything: no such file, not for you."""
        try:
            yield
        except OSError as error:
            raise explained(error, f"{self.what}: {name}") from error

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What the daemon refuses has a sentence; where the kernel did it before, its own words must do."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.EINPROGRESS:
                raise InProgressError(self.last_error()) from error
            if error.errno in _NEVER_ASKED:
                raise explained(error, self.what) from error
            sentence = self.last_error()
            if not sentence:
                raise explained(error, self.what) from error
            raise FspoolError(sentence, errno=error.errno) from error


#: Answers of a mount whose daemon has gone.
_NEVER_ASKED = frozenset((errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED))


def read_file(path: Path) -> str:
    """The text of a control file, which may be longer than its size says. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, _CHUNK):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces).decode(errors="surrogateescape")


def explained(error: OSError, what: str) -> FspoolError:
    """The error of a system call as a sentence."""
    number = error.errno or errno.EIO
    if number in _NEVER_ASKED:
        return FspoolError(
            "the daemon of this control tree has ended; `fspoolfs mount` starts it", errno=number
        )
    sentence = f"{what}: {os.strerror(number)}"
    return AccessError(sentence) if number == errno.EACCES else FspoolError(sentence, errno=number)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Tree(Place):
    """The root of a control tree."""

    @classmethod
    def at(cls, path: Path) -> Tree:
        """Raises `NotFoundError` where no control tree is mounted."""
        path = path.absolute()
        tree = cls(path, str(path), path)
        if not tree.has("pools"):
            raise NotFoundError(f"{path}: no control tree of fspoolfs is mounted there")
        return tree

    def pools(self) -> list[str]:
        """The names of all pools, sorted."""
        return self.names("pools")

    def pool(self, name: str) -> Place:
        """Raises `NotFoundError`, and `InvalidError` for what is no name."""
        return self._child(f"pools/{check_name(name, 'pool name')}", f"pool {name}")

    def item(self, pool: str, name: str) -> Place:
        above = self.pool(pool)
        inside = f"pools/{pool}/items/{check_name(name, 'item name')}"
        return self._child(inside, f"item {name} of {above.what}")

    def deleted(self, pool: str, name: str) -> Place:
        """An item in the trash of its pool."""
        above = self.pool(pool)
        inside = f"pools/{pool}/trash/{check_name(name, 'item name')}"
        return self._child(inside, f"deleted item {name} of {above.what}")

    def new_item(self, pool: str, name: str) -> Place:
        """Where an item is going to be; nothing need be there."""
        self.pool(pool)
        path = self.path / f"pools/{pool}/items/{check_name(name, 'item name')}"
        return Place(path, f"item {name} of pool {pool}", path)

    def _child(self, inside: str, what: str) -> Place:
        if not self.has(inside):
            raise NotFoundError(f"there is no {what}")
        path = self.path / inside
        return Place(path, what, path)
