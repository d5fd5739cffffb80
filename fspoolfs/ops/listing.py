"""An open directory: the names as they were at opening, answered with attributes as they are now."""

from __future__ import annotations

import pyfuse3
from pyfuse3 import EntryAttributes, FileNameT, ReaddirToken

from fspoolfs.errors import NotFoundError
from fspoolfs.ops import attributes, inodes
from fspoolfs.ops.editing import Editing
from fspoolfs.ops.inodes import Inodes
from fspoolfs.tree.node import Directory


class Listing:
    """What readdir reads. Offsets are positions in the list of names, counted from 1."""

    def __init__(self, directory: Directory, table: Inodes, editing: Editing) -> None:
        self._directory = directory
        self._inodes = table
        self._editing = editing
        self._names: list[str] = []
        #: The kernel copies an entry, so one object serves for all plain directories.
        self._entry = attributes.directory_entry()

    def reply(self, start: int, token: ReaddirToken) -> None:
        """Hand over entries from `start` on, as many as the kernel's buffer takes."""
        if start == 0:
            self._names = [*self._directory.names(), *self._editing.names(self._directory)]
        for position in range(start, len(self._names)):
            name = self._names[position]
            entry = self._find(name)
            if entry is None:
                continue
            encoded = FileNameT(name.encode("utf-8", "surrogateescape"))
            if not pyfuse3.readdir_reply(token, encoded, entry, position + 1):
                return

    def _find(self, name: str) -> EntryAttributes | None:
        """The entry called `name`, or `None` when it has gone meanwhile."""
        scratch = self._editing.find(self._directory, name)
        if scratch is not None:
            return attributes.of_scratch(scratch)
        try:
            found = self._directory.find(name)
        except NotFoundError:
            return None
        if isinstance(found, tuple):
            if self._editing.is_away(self._directory, name):
                return None
            return attributes.of_row(self._directory, *found)
        self._inodes.remember(found)
        if found.volatile:
            return attributes.of_directory(found)
        return attributes.fill(self._entry, inodes.of_directory(found.number), found.attributes())
