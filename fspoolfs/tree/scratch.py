"""The temporary files of editors: in memory, few and small, in one directory, gone after a while.

An editor writes a new file beside the one it edits and renames it into place, or removes the old
one and creates it again. Both must work on `config.xml`, so a directory that has one takes files
with the names that editors choose, and lets `config.xml` be away for a moment.
"""

from __future__ import annotations

import errno
import re

import trio

from fspoolfs.errors import FspoolError, ImmutableError, TooLargeError
from fspoolfs.model.documents import MAX_DOCUMENT
from fspoolfs.service.objects import new_number

DOCUMENT = "config.xml"

#: How many files one directory, and all together, may hold.
PER_DIRECTORY = 8
ALL_TOGETHER = 256
#: The most bytes of one file: a swap file is somewhat larger than the document it is for.
LARGEST = 2 * MAX_DOCUMENT
#: Seconds after its last use that a file is kept, and that a removed `config.xml` stays away.
KEPT = 120.0
AWAY = 2.0

#: vim's swap files, backups and probe (4913, then 123 more each time); sed's and perl's temporary
#: names; emacs' autosave; what cp, install and mv make when they keep a backup.
_EDITORS_NAMES = re.compile(
    r"\.?config\.xml[~.].*|#config\.xml#|config\.xml~|\d{4,5}|sed[A-Za-z0-9]{6}|[A-Za-z0-9_]{8}"
)


class ScratchFile:
    """A regular file in memory; `number` is its identity in the tree."""

    __slots__ = ("data", "gid", "mode", "number", "uid", "used", "users")

    def __init__(self, *, mode: int, uid: int, gid: int) -> None:
        self.number = new_number()
        self.data = bytearray()
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.users = 0
        self.used = trio.current_time()

    def write(self, offset: int, data: bytes) -> None:
        """Raises `TooLargeError` beyond `LARGEST`."""
        end = offset + len(data)
        if end > LARGEST:
            raise TooLargeError(f"a temporary file may hold {LARGEST} bytes")
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset:end] = data
        self.used = trio.current_time()

    def truncate(self, size: int) -> None:
        if size > LARGEST:
            raise TooLargeError(f"a temporary file may hold {LARGEST} bytes")
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))


class ScratchSpace:
    """All temporary files, by the number of their directory and their name."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, str], ScratchFile] = {}
        self._away: dict[int, float] = {}

    def find(self, directory: int, name: str) -> ScratchFile | None:
        return self._files.get((directory, name))

    def names(self, directory: int) -> list[str]:
        return [name for number, name in self._files if number == directory]

    def create(self, directory: int, name: str, *, mode: int, uid: int, gid: int) -> ScratchFile:
        """Raises `ImmutableError` for a name that no editor chooses."""
        if not _EDITORS_NAMES.fullmatch(name):
            raise ImmutableError(f"{name}: only the temporary files of editors can be made here")
        self._expire()
        if len(self._files) >= ALL_TOGETHER or len(self.names(directory)) >= PER_DIRECTORY:
            raise FspoolError("too many temporary files; remove some", errno=errno.ENOSPC)
        file = self._files[directory, name] = ScratchFile(mode=mode, uid=uid, gid=gid)
        return file

    def remove(self, directory: int, name: str) -> None:
        del self._files[directory, name]

    def rename(self, directory: int, name: str, new_name: str) -> None:
        if not _EDITORS_NAMES.fullmatch(new_name):
            raise ImmutableError(f"{new_name}: only the temporary files of editors can be made here")
        self._files[directory, new_name] = self._files.pop((directory, name))

    def take_away(self, directory: int) -> None:
        """Hide the directory's document for a moment, since its name is about to be written anew."""
        self._away[directory] = trio.current_time() + AWAY

    def bring_back(self, directory: int) -> None:
        self._away.pop(directory, None)

    def is_away(self, directory: int) -> bool:
        until = self._away.get(directory)
        if until is None:
            return False
        if trio.current_time() < until:
            return True
        del self._away[directory]
        return False

    def _expire(self) -> None:
        limit = trio.current_time() - KEPT
        for key, file in list(self._files.items()):
            if not file.users and file.used < limit:
                del self._files[key]
