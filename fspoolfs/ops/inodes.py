"""Inode numbers: computed, not counted.

Every directory of the control tree has a number for life and every file a position in its
directory's table, so an inode number follows from both and none is ever reused. Only directories
are remembered, for as long as their object lives; the kernel's lookup counts are of no concern.
"""

from __future__ import annotations

import errno

from pyfuse3 import FUSEError, InodeT

from fspoolfs.tree.node import Directory, Row
from fspoolfs.tree.root import Root
from fspoolfs.tree.scratch import ScratchFile

#: Bits for a file's position: more than any table has rows.
_BITS = 6
_POSITIONS = (1 << _BITS) - 1

#: What an inode number can stand for: a directory, a row of its table, or an editor's file.
Leaf = tuple[Directory, Row[Directory]]


def of_directory(number: int) -> InodeT:
    return InodeT((number << _BITS) + 1)


def of_row(number: int, position: int) -> InodeT:
    return InodeT((number << _BITS | position) + 1)


class Inodes:
    """From an inode number to what it stands for."""

    def __init__(self, root: Root) -> None:
        self._directories: dict[int, Directory] = {root.number: root}
        self._scratch: dict[int, tuple[Directory, ScratchFile]] = {}
        #: Editors' files that became a document: until the kernel looks again, they stand for it.
        self._became: dict[int, Leaf] = {}

    def remember(self, directory: Directory) -> None:
        """Let the directory be found by its number; the kernel is about to learn it."""
        self._directories[directory.number] = directory

    def forget(self, number: int) -> None:
        """The object is gone; the kernel gets ESTALE if it asks for it once more."""
        self._directories.pop(number, None)
        self._directories.pop(number + 1, None)

    def forget_below(self, parent: int) -> None:
        """Everything in the directory with that number is gone."""
        gone = [
            number
            for number, directory in self._directories.items()
            if directory.parent.number == parent and number != parent
        ]
        for number in gone:
            self.forget(number)

    def remember_scratch(self, directory: Directory, file: ScratchFile) -> None:
        self._scratch[file.number] = (directory, file)

    def become(self, file: ScratchFile, leaf: Leaf) -> None:
        self._scratch.pop(file.number, None)
        self._became[file.number] = leaf

    def forgotten(self, inode: InodeT) -> None:
        """The kernel has let go of `inode`."""
        number = (inode - 1) >> _BITS
        self._became.pop(number, None)
        self._scratch.pop(number, None)

    def directory(self, inode: InodeT) -> Directory:
        found = self._directories.get((inode - 1) >> _BITS)
        if found is None or (inode - 1) & _POSITIONS:
            raise FUSEError(errno.ESTALE if found is None else errno.ENOTDIR)
        return found

    def find(self, inode: InodeT) -> Directory | Leaf | ScratchFile:
        """Raises ESTALE for what is gone."""
        number, position = (inode - 1) >> _BITS, (inode - 1) & _POSITIONS
        directory = self._directories.get(number)
        if directory is None:
            scratch = self._scratch.get(number)
            if scratch is not None:
                return scratch[1]
            if number in self._became:
                return self._became[number]
            raise FUSEError(errno.ESTALE)
        if not position:
            return directory
        for at, row in directory.table.values():
            if at == position:
                return directory, row
        raise FUSEError(errno.ESTALE)
