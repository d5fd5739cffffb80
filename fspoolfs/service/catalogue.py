"""Reads what a pool's storage says about its items and its trash.

The definitions are one file each, and they are the truth; `fspoolfs.service.index` spares parsing
those that have not changed.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterable, Set
from dataclasses import dataclass
from uuid import UUID, uuid4

from fspoolfs import names
from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import CorruptError, FspoolError, StorageError
from fspoolfs.model import documents
from fspoolfs.model.definitions import ItemDefinition, Permissions
from fspoolfs.model.infos import FileInfo
from fspoolfs.model.states import ItemState
from fspoolfs.service import index, trashcan
from fspoolfs.service.index import Index
from fspoolfs.service.objects import Item, Snapshot, TrashEntry

log = logging.getLogger(__name__)

_SUFFIX = ".xml"
#: A stored definition is at most a document and what canonical output adds to it.
_DEFINITION_LIMIT = 4 << 20
_SECOND = 1_000_000_000


@dataclass(slots=True)
class Loaded:
    """What was found; `parsed` of the items were not in the index."""

    items: list[Item]
    parsed: int


def load_items(root: RootDirectory) -> Loaded:
    """Every item that is defined in the pool at `root`, with its state as the storage shows it."""
    index = Index(root)
    there = root.directories("")
    found = Loaded([], 0)
    for entry, info in root.entries(layout.ITEMS):
        if entry.startswith("."):
            continue  # a file that is just being written
        if not entry.endswith(_SUFFIX):
            log.warning(
                "%s is no definition of an item and is left alone", root.location(f"{layout.ITEMS}/{entry}")
            )
            continue
        name = entry.removesuffix(_SUFFIX)
        definition = index.find(entry, name, info)
        if definition is None:
            found.parsed += 1
            item = _parse_item(root, name, info)
        else:
            item = Item(definition, ItemState.READY, changed=info.mtime_ns // _SECOND)
        if item is not None:
            if item.state is ItemState.READY:
                _observe(root, item, there)
            found.items.append(item)
    return found


def _parse_item(root: RootDirectory, name: str, info: FileInfo) -> Item | None:
    """The item that a file defines; failed when it cannot be read, `None` when it has gone."""
    changed = info.mtime_ns // _SECOND
    try:
        return Item(read_item(root, name), ItemState.READY, changed=changed)
    except FileNotFoundError:
        return None
    except (FspoolError, OSError) as error:
        refusal = (
            error
            if isinstance(error, FspoolError)
            else StorageError.from_os(f"read the definition of item {name}", error)
        )
        log.error("item %s: %s", name, refusal)
        stub = ItemDefinition(name=name, uuid=uuid4(), permissions=_real_permissions(root, name))
        item = Item(stub, ItemState.FAILED, changed=changed)
        item.error = item.problem = refusal
        item.unreadable = True
        return item


def _real_permissions(root: RootDirectory, directory: str) -> Permissions:
    """Owner, group and mode of a directory, for an item whose definition no longer tells them."""
    try:
        info = root.stat(directory)
    except OSError:
        return Permissions()
    if not stat.S_ISDIR(info.mode):
        return Permissions()
    return Permissions(mode=stat.S_IMODE(info.mode), owner=info.owner, group=info.group)


def read_item(root: RootDirectory, name: str) -> ItemDefinition:
    """The stored definition of `name`. Raises `CorruptError` or `OSError`."""
    path = layout.definition(name)
    try:
        definition = documents.parse_item(root.read(path, limit=_DEFINITION_LIMIT))
        names.check_name(name)
    except FspoolError as error:
        raise CorruptError(f"{root.location(path)}: {error}") from error
    if definition.name != name or definition.uuid is None:
        raise CorruptError(f"{root.location(path)} defines item {definition.name!r}, not {name!r}")
    return definition


def _observe(root: RootDirectory, item: Item, there: Set[str]) -> None:
    """Notice an item whose directory is gone, or is no longer a directory; `there` are the root's."""
    location = item.definition.location
    if location in there:
        return
    try:
        is_directory = stat.S_ISDIR(root.stat(location).mode)
    except (FileNotFoundError, NotADirectoryError):
        item.state = ItemState.MISSING
        item.error = item.problem = FspoolError(
            f"the directory /{location} of item {item.name} is missing; put it back and refresh the pool, or "
            "delete the item"
        )
        return
    except OSError as error:
        item.state = ItemState.FAILED
        item.error = item.problem = StorageError.from_os(f"look at the directory of item {item.name}", error)
        return
    if not is_directory:
        item.state = ItemState.FAILED
        item.error = item.problem = FspoolError(
            f"/{location} in the pool should be the directory of item {item.name}, but is not a directory"
        )


def load_trash(root: RootDirectory) -> dict[str, TrashEntry]:
    """What is in the trash, by name. A record that cannot be read is logged and left alone."""
    entries: dict[str, TrashEntry] = {}
    for file in sorted(root.names(layout.TRASH)):
        if not file.endswith(_SUFFIX) or file.startswith("."):
            continue
        path = f"{layout.TRASH}/{file}"
        try:
            definition = documents.parse_item(root.read(path, limit=_DEFINITION_LIMIT))
            entry = trashcan.entry_of(file, definition, entries)
            entries[entry.name] = entry
        except (FspoolError, OSError) as error:
            log.error("%s: %s", root.location(path), error)
    return entries


def load_snapshots(root: RootDirectory) -> dict[UUID, dict[str, Snapshot]]:
    """The snapshots of each item that has some, by name; what is called like none is left alone."""
    found: dict[UUID, dict[str, Snapshot]] = {}
    for directory in root.names(layout.SNAPSHOTS):
        place = f"{layout.SNAPSHOTS}/{directory}"
        try:
            uuid = UUID(directory)
            # What begins with a dot is the file system's own.
            entries = [entry for entry in sorted(root.names(place)) if not entry.startswith(".")]
            snapshots = [(entry, Snapshot.parse(entry)) for entry in entries]
        except (ValueError, OSError) as error:
            log.warning("%s holds no snapshots and is left alone: %s", root.location(place), error)
            continue
        for entry, snapshot in snapshots:
            if snapshot is None:
                log.warning("%s is no snapshot and is left alone", root.location(f"{place}/{entry}"))
            else:
                found.setdefault(uuid, {})[snapshot.name] = snapshot
    return found


def save_index(root: RootDirectory, items: Iterable[Item], now_ns: int) -> None:
    """Leave an index for the next start; `items` are taken as they are now."""
    definitions = {
        f"{item.name}{_SUFFIX}": item.definition for item in items if item.state is not ItemState.FAILED
    }
    index.save(root, definitions, now_ns)
