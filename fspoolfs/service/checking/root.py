"""What a pool's root holds, looked at as a start of the pool reads it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Set
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import FspoolError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.service import catalogue, identity
from fspoolfs.service.checking.findings import BY_START_OF_POOL, Repair, Report, hearing
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.journal import SEGMENT, Journal
from fspoolfs.service.objects import Item, TrashEntry

#: Where writes may leave temporary files.
_WRITTEN = (layout.OWN, layout.ITEMS, layout.TRASH)
#: What a file system keeps in its root for itself.
_OF_FILE_SYSTEMS = frozenset(("lost+found", ".snap", ".zfs"))
#: What an item's last intent means for it.
_BECAME = {
    Outcome.PLACED: "made or changed",
    Outcome.TRASHED: "deleted",
    Outcome.PURGED: "purged",
    Outcome.ABORTED: "given up",
}


def check_root(root: RootDirectory, definition: PoolDefinition, *, known: bool, live: bool) -> Report:
    """What is wrong with the pool at `root`.

    A pool that is `known` to have been active there must carry its identity. While a pool is `live`,
    here or on another host, what somebody may just be doing is left out. Raises `OSError`.
    """
    return _Check(root, definition, live=live or _is_shared(root)).run(known=known)


def _is_shared(root: RootDirectory) -> bool:
    with suppress(FileNotFoundError):
        own = root.names(layout.OWN)
        return "owner" in own or ("hosts" in own and bool(root.names(layout.HOSTS)))
    return False


@dataclass(frozen=True, slots=True)
class _Content:
    """A journal as it is on the disk, which cannot be written; keeps `LogFile`."""

    data: bytes

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        raise AssertionError("a check writes nothing")

    def sync(self) -> None:
        raise AssertionError("a check writes nothing")

    def close(self) -> None:
        """Nothing is open."""


class _Check:
    def __init__(self, root: RootDirectory, definition: PoolDefinition, *, live: bool) -> None:
        self._root = root
        self._definition = definition
        self._live = live
        self._subject = f"pool {definition.name}"
        self._report = Report(pools=1)

    def run(self, *, known: bool) -> Report:
        if not self._carries_the_pool(known=known):
            return self._report
        for place in (layout.OWN, *layout.DIRECTORIES):
            self._check_private(place)
        if not self._live:
            self._check_leftovers()
            self._check_journal()
        strangers = set(self._strangers(self._load_items()))
        items, trash = self._read_objects()
        # What is just being made or deleted is a stranger for a moment only.
        for place in sorted(strangers & set(self._strangers(items)) if self._live else strangers):
            self._add(
                f"{self._root.location(place)} belongs to no item",
                "define an item with this path, which takes it over, or move it away",
            )
        self._check_trash(trash)
        self._check_snapshots(items, trash)
        return self._report

    def _add(self, error: FspoolError | str, remedy: str = "", repair: Repair | None = None) -> None:
        self._report.add(self._subject, error, remedy, repair)

    def _repair(self, what: str, act: Callable[[], None]) -> Repair | None:
        if self._live:
            return None

        def alone() -> None:
            # Refused while a daemon with another state directory has the pool active.
            with closing(self._root.open_log(layout.JOURNAL, size=2 * SEGMENT)):
                act()

        return Repair(what, alone)

    # -- identity and fspoolfs' own directories ---------------------------------------------------

    def _carries_the_pool(self, *, known: bool) -> bool:
        where, wanted = self._root.path, self._definition
        try:
            found = identity.read(self._root)
        except FspoolError as error:
            self._add(error)
            return False
        if found is None:
            if known:
                self._add(
                    f"{where} does not carry the pool any more",
                    "mount what belongs there, or begin with an empty pool by `build overwrite`",
                )
            else:
                self._report.notes.append(f"{self._subject} was never started at {where}")
            return False
        if found.uuid != wanted.uuid:
            self._add(
                f"{where} carries pool {found.name} with uuid {found.uuid}, not this one, with {wanted.uuid}",
                "define the pool with that uuid, or give it another target",
            )
            return False
        return True

    def _check_private(self, place: str) -> None:
        where = self._root.location(place)
        try:
            info = self._root.stat(place)
        except FileNotFoundError:
            self._add(f"{where} is missing", "the next start of the pool makes it")
            return
        if not stat.S_ISDIR(info.mode):
            self._add(f"{where} should be a directory", "move it away")
            return
        ours = os.geteuid()
        if info.owner != ours:
            self._add(
                f"{where} belongs to user {info.owner}, who could change what is in the pool",
                f"chown {ours} {where}",
                self._repair(
                    f"give {where} to user {ours}",
                    partial(self._root.set_attributes, place, mode=None, owner=ours, group=None),
                ),
            )
        mode, most = stat.S_IMODE(info.mode), layout.PASSABLE if place == layout.SNAPSHOTS else 0o700
        if mode & ~most & 0o077:
            self._add(
                f"{where} has mode {mode:04o}, which lets others in",
                f"chmod {mode & most:04o} {where}",
                self._repair(
                    f"give {where} mode {mode & most:04o}",
                    partial(self._root.set_attributes, place, mode=mode & most, owner=None, group=None),
                ),
            )

    # -- what a crash leaves ----------------------------------------------------------------------

    def _names(self, place: str) -> list[str]:
        try:
            return sorted(self._root.names(place))
        except (FileNotFoundError, NotADirectoryError):
            return []  # told above

    def _check_leftovers(self) -> None:
        for place in _WRITTEN:
            for name in self._names(place):
                if name.startswith("."):
                    path = f"{place}/{name}"
                    where = self._root.location(path)
                    self._add(
                        f"{where} is left of a write that was interrupted",
                        BY_START_OF_POOL,
                        self._repair(f"remove {where}", partial(self._root.remove_file, path)),
                    )
        for place, what in ((layout.STAGING, "was being made"), (layout.PURGE, "is still to be removed")):
            for name in self._names(place):
                self._add(f"{self._root.location(f'{place}/{name}')} {what}", BY_START_OF_POOL)

    def _check_journal(self) -> None:
        try:
            data = self._root.read(layout.JOURNAL, limit=2 * SEGMENT)
        except FileNotFoundError:
            return
        last: dict[UUID, Intent] = {}
        for record in Journal(_Content(data)).pending:
            if not record.payload:
                continue
            try:
                intent = Intent.decode(record.payload)
            except FspoolError as error:
                self._add(f"{self._root.location(layout.JOURNAL)} holds {error}")
                continue
            if intent.outcome is not Outcome.NOTED:
                last[intent.uuid] = intent
        for intent in last.values():
            what = _BECAME[intent.outcome]
            self._add(
                f"item {intent.definition.name} was {what} just before the daemon ended, perhaps not wholly",
                BY_START_OF_POOL,
            )

    # -- items, trash and snapshots ---------------------------------------------------------------

    def _load_items(self) -> list[Item]:
        with hearing():  # what it says is heard when all is read
            return catalogue.load_items(self._root).items

    def _read_objects(self) -> tuple[list[Item], dict[str, TrashEntry]]:
        with hearing() as sentences:
            items = catalogue.load_items(self._root).items
            trash = catalogue.load_trash(self._root)
        self._report.items = len(items)
        for item in items:
            if item.problem is not None:
                self._report.add(f"item {item.name} of {self._subject}", item.problem)
        told = [item.problem.sentence for item in items if item.problem is not None]
        for sentence in sentences:
            if not any(sentence.endswith(one) for one in told):
                self._add(sentence)
        return items, trash

    def _strangers(self, items: list[Item]) -> Iterator[str]:
        """What lies beside items, in the root and in the directories on the way to items."""
        owned = {item.definition.location for item in items}
        ways = {place for location in owned for place in _above(location)}
        for way in ways | {""}:
            for name in self._names(way):
                place = f"{way}/{name}" if way else name
                if place not in owned | ways and not (not way and name in _OF_FILE_SYSTEMS | {layout.OWN}):
                    yield place

    def _check_trash(self, trash: dict[str, TrashEntry]) -> None:
        held = {
            name
            for name in self._names(layout.TRASH)
            if not name.endswith(".xml") and not name.startswith(".")
        }
        recorded = {str(entry.uuid): entry.name for entry in trash.values()}
        if self._live:
            held &= set(self._names(layout.TRASH))
            recorded = {uuid: name for uuid, name in recorded.items() if uuid in held}
        for uuid in sorted(held - recorded.keys()):
            where = self._root.location(f"{layout.TRASH}/{uuid}")
            self._add(f"{where} is in the trash, but nothing tells what it was", "move it away")
        for uuid in sorted(recorded.keys() - held):
            self._add(f"deleted item {recorded[uuid]} has no directory in the trash", "purge it")

    def _check_snapshots(self, items: list[Item], trash: dict[str, TrashEntry]) -> None:
        with hearing() as sentences:
            found = catalogue.load_snapshots(self._root)
        for sentence in sentences:
            self._add(sentence)
        owners: Set[UUID] = {item.uuid for item in items} | {entry.uuid for entry in trash.values()}
        for uuid in sorted(found.keys() - owners):
            where = self._root.location(layout.snapshots(uuid))
            self._add(
                f"{where} holds snapshots of an item that there is none of",
                f"define the item with uuid {uuid} again, or move them away",
            )


def _above(location: str) -> Iterator[str]:
    while location := location.rpartition("/")[0]:
        yield location
