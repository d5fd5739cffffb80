"""States of the in-memory tree, and the operations that lead from one state to the next.

A state is a table of nodes by inode number; entries of directories refer to numbers. An operation
carries everything that it needs and is applied to any state that has what it reads, so the same
operations build the state that programs see and, later or never, the one that a power cut leaves.
This module knows no paths, checks no permissions and refuses nothing: `fspoolfs.backends.memory`
has done so before it makes an operation.
"""

from __future__ import annotations

import abc
import random
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fspoolfs.backends.memory_quota import Account

#: What an entry occupies on disk comes in blocks of this size, as on ext4 and xfs by default.
BLOCK = 4096
#: What a disk writes whole or not at all, in bytes.
SECTOR = 512
#: The inode number of a root.
ROOT_INODE = 1

#: (directory's inode number, name)
Entry = tuple[int, str]
#: What operations depend on: a node's existence (its number), what an entry refers to, or what a
#: node says of itself, which stands under the empty name: see `inside`.
Key = int | Entry


def inside(inode: int) -> Entry:
    """The key of a directory's attributes, or of a file's content."""
    return (inode, "")


def blocks(size: int) -> int:
    """`size` bytes in whole blocks."""
    return -(-size // BLOCK) * BLOCK


@dataclass(slots=True)
class Node:
    """A directory (`children` by name) or a regular file (`content`); `mode` includes the type.

    `account` is the inode number of the directory whose account it is charged to, 0 for none.
    """

    mode: int
    owner: int
    group: int
    mtime_ns: int
    ctime_ns: int
    content: bytearray | None = None
    children: dict[str, int] | None = None
    account: int = 0

    @property
    def size(self) -> int:
        """What st_size tells, in bytes."""
        return BLOCK if self.content is None else len(self.content)

    @property
    def blocks(self) -> int:
        """Bytes on disk; a file is charged whole blocks, a directory one."""
        return blocks(self.size)

    def copy(self) -> Node:
        return replace(
            self,
            content=None if self.content is None else bytearray(self.content),
            children=None if self.children is None else dict(self.children),
        )

    def touch(self, time_ns: int) -> None:
        """An entry changed. The later time wins, so the order of independent changes is no matter."""
        self.mtime_ns = max(self.mtime_ns, time_ns)
        self.ctime_ns = max(self.ctime_ns, time_ns)


@dataclass(slots=True)
class State:
    """All nodes by inode number; `used` is the sum of their blocks.

    `accounts` are those of the directories that are counted by themselves, by inode number.
    """

    nodes: dict[int, Node]
    used: int
    accounts: dict[int, Account] = field(default_factory=dict)

    @classmethod
    def new(cls, *, mode: int, owner: int, group: int, time_ns: int) -> State:
        """A root directory with nothing in it."""
        root = Node(stat.S_IFDIR | mode, owner, group, time_ns, time_ns, children={})
        return cls({ROOT_INODE: root}, root.blocks)

    def copy(self) -> State:
        nodes = {inode: node.copy() for inode, node in self.nodes.items()}
        return State(nodes, self.used, {inode: replace(one) for inode, one in self.accounts.items()})

    def children(self, inode: int) -> dict[str, int]:
        """The entries of directory `inode`."""
        children = self.nodes[inode].children
        assert children is not None, f"inode {inode} is no directory"
        return children

    def content(self, inode: int) -> bytearray:
        """What file `inode` holds."""
        content = self.nodes[inode].content
        assert content is not None, f"inode {inode} is no file"
        return content

    def link(self, entry: Entry, inode: int, time_ns: int) -> None:
        self.children(entry[0])[entry[1]] = inode
        self.nodes[entry[0]].touch(time_ns)

    def unlink(self, entry: Entry, time_ns: int) -> None:
        del self.children(entry[0])[entry[1]]
        self.nodes[entry[0]].touch(time_ns)

    def add(self, inode: int, node: Node) -> None:
        self.nodes[inode] = node
        self.charge(node, node.blocks, 1)

    def drop(self, inode: int) -> None:
        node = self.nodes.pop(inode)
        self.charge(node, -node.blocks, -1)
        self.accounts.pop(inode, None)

    def charge(self, node: Node, size: int, inodes: int = 0) -> None:
        """Count what `node` takes more, or with negative numbers less."""
        self.used += size
        account = self.accounts.get(node.account)
        if account is not None:
            account.charge(size, inodes)

    def count_apart(self, inode: int) -> Account:
        """The account of directory `inode`, which what it holds is charged to from now on."""
        account = self.accounts.setdefault(inode, Account())
        waiting = [inode]
        for one in waiting:
            node = self.nodes[one]
            if one in self.accounts and one != inode:
                continue
            if node.account != inode:
                self.charge(node, -node.blocks, -1)
                node.account = inode
                self.charge(node, node.blocks, 1)
            waiting.extend((node.children or {}).values())
        return account


class Operation(abc.ABC):
    """One atomic change of metadata, or of a whole file's content.

    Two operations whose `writes` meet neither the other's `writes` nor its `reads` can change
    places; `needed_for` relies on it.
    """

    __slots__ = ()

    @abc.abstractmethod
    def reads(self) -> Iterable[Key]:
        """What it needs to find as it was."""

    @abc.abstractmethod
    def writes(self) -> Iterable[Key]:
        """What it changes."""

    @abc.abstractmethod
    def apply(self, state: State) -> None:
        """Change `state`, which has what it reads."""

    def torn(self, chance: random.Random) -> Operation:
        """The operation as a power cut may leave it when it was never synced."""
        return self


@dataclass(frozen=True, slots=True)
class Make(Operation):
    """A new entry with a new node: an empty directory or file, as the type in `mode` says."""

    entry: Entry
    inode: int
    mode: int
    owner: int
    group: int
    time_ns: int

    def reads(self) -> Iterable[Key]:
        return (self.entry[0],)

    def writes(self) -> Iterable[Key]:
        return (self.entry, self.inode)

    def apply(self, state: State) -> None:
        node = Node(self.mode, self.owner, self.group, self.time_ns, self.time_ns)
        node.account = state.nodes[self.entry[0]].account
        if stat.S_ISDIR(self.mode):
            node.children = {}
        else:
            node.content = bytearray()
        state.add(self.inode, node)
        state.link(self.entry, self.inode, self.time_ns)


@dataclass(frozen=True, slots=True)
class Fill(Operation):
    """A file holds `content`, whatever it held before."""

    inode: int
    content: bytes
    time_ns: int

    def reads(self) -> Iterable[Key]:
        return (self.inode,)

    def writes(self) -> Iterable[Key]:
        return (inside(self.inode),)

    def apply(self, state: State) -> None:
        node = state.nodes[self.inode]
        before = node.blocks
        node.content = bytearray(self.content)
        state.charge(node, node.blocks - before)
        node.touch(self.time_ns)

    def torn(self, chance: random.Random) -> Fill:
        """Un-synced data is written after the metadata: the file can be there, but be empty or short."""
        if not self.content or chance.random() < 0.5:
            return self
        length = 0 if chance.random() < 0.5 else chance.randrange(len(self.content))
        return replace(self, content=self.content[:length])


@dataclass(frozen=True, slots=True)
class SetAttributes(Operation):
    """New permission bits, owner, group or modification time; `None` leaves a value as it is."""

    inode: int
    mode: int | None
    owner: int | None
    group: int | None
    mtime_ns: int | None
    time_ns: int

    def reads(self) -> Iterable[Key]:
        return (self.inode,)

    def writes(self) -> Iterable[Key]:
        own = inside(self.inode)
        # Changes of entries move the modification time on, so that one cannot pass them.
        return (own,) if self.mtime_ns is None else (own, self.inode)

    def apply(self, state: State) -> None:
        node = state.nodes[self.inode]
        if self.mode is not None:
            node.mode = stat.S_IFMT(node.mode) | self.mode
        node.owner = node.owner if self.owner is None else self.owner
        node.group = node.group if self.group is None else self.group
        node.mtime_ns = node.mtime_ns if self.mtime_ns is None else self.mtime_ns
        node.ctime_ns = max(node.ctime_ns, self.time_ns)


@dataclass(frozen=True, slots=True)
class SetLimits(Operation):
    """A directory is counted by itself, with what was made in it before, and may hold so much."""

    inode: int
    capacity: int | None
    files: int | None

    def reads(self) -> Iterable[Key]:
        return (self.inode,)

    def writes(self) -> Iterable[Key]:
        return (inside(self.inode),)

    def apply(self, state: State) -> None:
        account = state.count_apart(self.inode)
        account.capacity, account.files = self.capacity, self.files


@dataclass(frozen=True, slots=True)
class Move(Operation):
    """An entry gets another place; `replaced` is the file that it takes the place of.

    `above` are the entries that lead to the target's directory: whoever changed them before must
    stay before, or a directory could end up beneath itself.
    """

    source: Entry
    target: Entry
    inode: int
    replaced: int | None
    above: tuple[Entry, ...]
    time_ns: int

    def reads(self) -> Iterable[Key]:
        return (self.source[0], self.target[0], *self.above)

    def writes(self) -> Iterable[Key]:
        own = (self.source, self.target)
        return own if self.replaced is None else (*own, self.replaced)

    def apply(self, state: State) -> None:
        state.unlink(self.source, self.time_ns)
        if self.replaced is not None:
            state.drop(self.replaced)
        state.link(self.target, self.inode, self.time_ns)


@dataclass(frozen=True, slots=True)
class Exchange(Operation):
    """Two entries change places; `above` are those that lead to both, as for `Move`."""

    one: Entry
    other: Entry
    inodes: tuple[int, int]
    above: tuple[Entry, ...]
    time_ns: int

    def reads(self) -> Iterable[Key]:
        return (self.one[0], self.other[0], *self.above)

    def writes(self) -> Iterable[Key]:
        return (self.one, self.other)

    def apply(self, state: State) -> None:
        state.unlink(self.one, self.time_ns)
        state.unlink(self.other, self.time_ns)
        state.link(self.one, self.inodes[1], self.time_ns)
        state.link(self.other, self.inodes[0], self.time_ns)


@dataclass(frozen=True, slots=True)
class Remove(Operation):
    """An entry and its node are gone; a directory was empty."""

    entry: Entry
    inode: int
    time_ns: int

    def reads(self) -> Iterable[Key]:
        return (self.entry[0],)

    def writes(self) -> Iterable[Key]:
        return (self.entry, self.inode)

    def apply(self, state: State) -> None:
        state.unlink(self.entry, self.time_ns)
        state.drop(self.inode)


def needed_for(keys: Iterable[Key], operations: list[Operation]) -> tuple[list[Operation], list[Operation]]:
    """Split `operations` into those without which `keys` would not be as they are, and the others.

    Both keep their order, and applying first the former, then the latter gives the same state as
    the order in which they came.
    """
    wanted = set(keys)
    needed: list[Operation] = []
    others: list[Operation] = []
    # What a needed operation only reads, and what it writes, must both not be changed before it by
    # an operation that is left behind; what is left behind must not read what it writes either.
    written: set[Key] = set()
    for operation in reversed(operations):
        writes = operation.writes()
        if wanted.isdisjoint(writes) and written.isdisjoint(operation.reads()):
            others.append(operation)
            continue
        needed.append(operation)
        written.update(writes)
        wanted.update(writes)
        wanted.update(operation.reads())
    return needed[::-1], others[::-1]


def copy_sectors(source: State, target: State, inode: int, sectors: set[int]) -> None:
    """Bring sectors of a file from one state to another, in which it has the same size or is missing."""
    if inode not in source.nodes or inode not in target.nodes:
        return
    written, kept = source.content(inode), target.content(inode)
    for sector in sectors:
        part = slice(sector * SECTOR, (sector + 1) * SECTOR)
        kept[part] = written[part]
