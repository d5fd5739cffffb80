"""From what the tree tells of a node to what the kernel gets, with how long it may believe it."""

from __future__ import annotations

import stat

from pyfuse3 import EntryAttributes, InodeT, ModeT

from fspoolfs.ops import inodes
from fspoolfs.tree.node import Attributes, Directory, File, Row
from fspoolfs.tree.scratch import ScratchFile

#: Seconds for which the kernel may keep a directory: whatever changes one tells the kernel, so this
#: is only what a lost message would cost.
DIRECTORY_TIMEOUT = 3600
#: The sizes of files change with what they tell.
FILE_TIMEOUT = 0

_SECOND = 1_000_000_000
_BLOCK = 512


def fill(entry: EntryAttributes, inode: InodeT, attributes: Attributes) -> EntryAttributes:
    """Write `attributes` into `entry`; timeouts and link count are left as they are."""
    entry.st_ino = inode
    entry.st_mode = ModeT(attributes.mode)
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    size = attributes.size or 0
    entry.st_size = size
    entry.st_blocks = (size + _BLOCK - 1) // _BLOCK
    time = attributes.time * _SECOND
    entry.st_mtime_ns = time
    entry.st_ctime_ns = time
    entry.st_atime_ns = time
    return entry


def new_entry(*, entry_timeout: float, attr_timeout: float, links: int = 1) -> EntryAttributes:
    entry = EntryAttributes()
    entry.entry_timeout = entry_timeout
    entry.attr_timeout = attr_timeout
    entry.st_nlink = links
    entry.st_blksize = 4096
    entry.generation = 0
    return entry


def directory_entry() -> EntryAttributes:
    """An entry that `fill` makes one of a directory."""
    return new_entry(entry_timeout=DIRECTORY_TIMEOUT, attr_timeout=DIRECTORY_TIMEOUT, links=2)


def of_directory(directory: Directory) -> EntryAttributes:
    entry = directory_entry()
    if directory.volatile:
        entry.entry_timeout = entry.attr_timeout = 0
    return fill(entry, inodes.of_directory(directory.number), directory.attributes())


def of_row(directory: Directory, position: int, row: Row[Directory]) -> EntryAttributes:
    """`size` of a file is that of its present content, where that is known without asking storage."""
    inode = inodes.of_row(directory.number, position)
    entry = new_entry(entry_timeout=DIRECTORY_TIMEOUT, attr_timeout=FILE_TIMEOUT)
    if row.present is not None:
        entry.entry_timeout = 0
    if not isinstance(row, File):
        target = row.target(directory).encode("utf-8", "surrogateescape")
        link = Attributes(
            mode=stat.S_IFLNK | 0o777,
            uid=directory.attributes().uid,
            gid=directory.attributes().gid,
            size=len(target),
            time=directory.attributes().time,
        )
        return fill(entry, inode, link)
    return fill(entry, inode, directory.file_attributes(row, size_of(directory, row)))


def size_of(directory: Directory, file: File[Directory]) -> int:
    if file.size is not None:
        return file.size(directory)
    if file.show is None:
        return 0
    return len(file.show(directory).encode("utf-8", "surrogateescape"))


def of_scratch(file: ScratchFile) -> EntryAttributes:
    entry = new_entry(entry_timeout=0, attr_timeout=0)
    attributes = Attributes(mode=stat.S_IFREG | file.mode, uid=file.uid, gid=file.gid, size=len(file.data))
    return fill(entry, inodes.of_directory(file.number), attributes)
