"""What directories and files of the control tree are made of.

A kind of directory is a class; its files are rows of a table (`File`): name, mode, what it shows and
what it takes. A new control file is one row.
"""

from __future__ import annotations

import enum
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar, cast

from fspoolfs.errors import FspoolError, ImmutableError, NotFoundError
from fspoolfs.model.definitions import Permissions
from fspoolfs.service.access import Caller
from fspoolfs.service.jobs import Job

D = TypeVar("D", bound="Directory")


class Subject(Protocol):
    """What remembers its last failed request: a pool, an item, the service for all else."""

    error: FspoolError | None


class Style(enum.Enum):
    """How a file is read and written."""

    #: One value; one write(2) is one request.
    VALUE = enum.auto()
    #: An XML document, collected per open handle and committed by the write that completes it.
    DOCUMENT = enum.auto()
    #: A job's progress: a line a second until it ends.
    PROGRESS = enum.auto()
    #: The event log.
    EVENTS = enum.auto()


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) tells. `size` is `None` where only a read can tell it."""

    mode: int
    uid: int
    gid: int
    size: int | None = None
    time: int = 0


#: Who owns what belongs to nobody else: the user and group that the daemon runs as.
OWNER = (os.geteuid(), os.getegid())


@dataclass(frozen=True, kw_only=True)
class File(Generic[D]):
    """One row of a directory's table.

    `show` gives the content, `ask` does where that may take a moment; exactly one of them is set,
    but for the styles that have no content of their own. `store` takes what was written. `whose`
    gives owner and group where they are not the daemon's. `jobs` are those that a progress file
    follows, `size` tells the length of a file that is too long to be shown for that.
    """

    name: str
    mode: int = 0o444
    style: Style = Style.VALUE
    show: Callable[[D], str] | None = None
    ask: Callable[[D], Awaitable[str | bytes]] | None = None
    store: Callable[[D, bytes, Caller], Awaitable[None]] | None = None
    whose: Callable[[D], tuple[int, int]] | None = None
    jobs: Callable[[D], Sequence[Job | None]] | None = None
    size: Callable[[D], int] | None = None
    present: Callable[[D], bool] | None = None
    polled: bool = False


@dataclass(frozen=True, kw_only=True)
class Link(Generic[D]):
    """A symbolic link in a directory's table.

    `target` is where it leads as far as that is known at once; `ask` is set where storage knows better.
    """

    name: str
    target: Callable[[D], str]
    ask: Callable[[D], Awaitable[str]] | None = None
    present: Callable[[D], bool] | None = None


Row = File[D] | Link[D]

#: A table by name, with the position of each row, which is part of its inode number.
Table = Mapping[str, tuple[int, Row[D]]]


def table(*rows: Row[D]) -> Table[Directory]:
    """Positions count from 1; 0 is the directory itself.

    A table is only ever used with directories of its own kind, which its type does not say.
    """
    found: Table[D] = {row.name: (position, row) for position, row in enumerate(rows, start=1)}
    return cast("Table[Directory]", found)


class Directory(ABC):
    """One directory of the control tree.

    `number` identifies it for as long as the daemon runs. What is not overridden is refused.
    """

    __slots__ = ("number",)

    #: The files and links of this kind of directory.
    table: ClassVar[Table[Directory]] = {}
    #: Whether editors may make their temporary files here.
    scratch = False
    #: Whether requests in here bound their own time, without the help of who serves them.
    bounded = False
    #: Whether another directory may come to stand under its name without the kernel being asked.
    volatile = False

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    @abstractmethod
    def path(self) -> str:
        """The place in the control tree, for error sentences and the log."""

    def path_of(self, name: str) -> str:
        """The place of what is called `name` in here."""
        return f"{self.path.rstrip('/')}/{name}"

    @property
    @abstractmethod
    def parent(self) -> Directory:
        """The directory above; the root's is itself."""

    def attributes(self) -> Attributes:
        return Attributes(mode=stat.S_IFDIR | 0o755, uid=OWNER[0], gid=OWNER[1])

    def subdirectory(self, name: str) -> Directory | None:
        """The directory called `name`, or `None`."""
        return None

    def subdirectories(self) -> Sequence[str]:
        """The names of all directories in here, as they are now."""
        return ()

    def file_attributes(self, file: File[Directory], size: int | None) -> Attributes:
        uid, gid = file.whose(self) if file.whose is not None else OWNER
        return Attributes(
            mode=stat.S_IFREG | file.mode, uid=uid, gid=gid, size=size, time=self.attributes().time
        )

    def find(self, name: str) -> Directory | tuple[int, Row[Directory]]:
        """Raises `NotFoundError`."""
        row = self.table.get(name)
        if row is not None and _is_present(self, row[1]):
            return row
        found = self.subdirectory(name)
        if found is None:
            raise NotFoundError(f"{self.path}: there is no {name}")
        return found

    def names(self) -> list[str]:
        """Files, links and directories."""
        files = [name for name, (_, row) in self.table.items() if _is_present(self, row)]
        return [*files, *self.subdirectories()]

    @property
    def subject(self) -> Subject:
        """The object that this directory belongs to, which remembers its last failed request."""
        return self.parent.subject

    def note(self, error: FspoolError) -> None:
        """Keep `error` as the last failed request of this directory's object."""
        self.subject.error = error

    def forgive(self, error: FspoolError | None) -> None:
        """What went wrong with `error` has come right after all."""
        if error is not None and self.subject.error is error:
            self.subject.error = None

    async def make(self, name: str, mode: int, caller: Caller) -> Directory:
        raise ImmutableError(f"{self.path}: no directory can be made here")

    async def remove(self, name: str, caller: Caller) -> None:
        raise ImmutableError(f"{self.path_of(name)} cannot be removed")

    async def rename(self, name: str, target: Directory, new_name: str, caller: Caller) -> None:
        raise ImmutableError(f"{self.path_of(name)} cannot be renamed or moved")

    async def set_permissions(self, permissions: Permissions, caller: Caller) -> None:
        raise ImmutableError(f"{self.path}: owner and mode follow from the definition and cannot be set here")


def _is_present(directory: Directory, row: Row[Directory]) -> bool:
    return row.present is None or row.present(directory)
