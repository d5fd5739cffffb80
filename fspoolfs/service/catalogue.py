"""Reads what a pool's storage says about its items, and fast where nothing has changed.

The definitions are one file each, and they are the truth. Parsing a hundred thousand of them takes
longer than a start may, so a stopping pool leaves an index of the plain ones beside them, each with
the inode number, size and times of its file; a row counts only while all of these still match, and
a row that was written in the same moment as its file (a clock tick could hide a later change) does
not. A lost or damaged index costs time, nothing else.
"""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from fspoolfs import names
from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import CorruptError, FspoolError, StorageError
from fspoolfs.model import documents
from fspoolfs.model.definitions import ItemDefinition, Permissions
from fspoolfs.model.infos import FileInfo
from fspoolfs.model.states import ItemState
from fspoolfs.service import trashcan
from fspoolfs.service.objects import Item, TrashEntry

log = logging.getLogger(__name__)

_SUFFIX = ".xml"
_VERSION = 1
_INDEX_LIMIT = 256 << 20
#: A stored definition is at most a document and what canonical output adds to it.
_DEFINITION_LIMIT = 4 << 20
#: Files younger than this when the index is written are not trusted to it, in nanoseconds: more
#: than the coarsest time stamps of the file systems in use.
_RACY = 2_000_000_000

_Signature = tuple[int, int, int, int]


def _signature(info: FileInfo) -> _Signature:
    return (info.inode, info.size, info.mtime_ns, info.ctime_ns)


def load_items(root: RootDirectory) -> list[Item]:
    """Every item that is defined in the pool at `root`, with its state as the storage shows it."""
    rows = _read_index(root)
    places = dict(root.entries(""))
    shared: dict[Permissions, Permissions] = {}
    items = []
    for entry, info in root.entries(layout.ITEMS):
        if entry.startswith(".") or not entry.endswith(_SUFFIX):
            _discard_leftover(root, entry)
            continue
        item = _load_item(root, entry.removesuffix(_SUFFIX), info, rows.get(entry))
        if item is not None:
            permissions = item.definition.permissions
            permissions = shared.setdefault(permissions, permissions)
            if permissions is not item.definition.permissions:
                item.definition = replace(item.definition, permissions=permissions)
            if item.state is ItemState.READY:
                _observe(root, item, places)
            items.append(item)
    return items


def _load_item(root: RootDirectory, name: str, info: FileInfo, row: list[Any] | None) -> Item | None:
    changed = info.mtime_ns // 1_000_000_000
    try:
        definition = _from_row(name, info, row) if row is not None else None
        if definition is None:
            definition = read_item(root, name)
    except FileNotFoundError:
        return None
    except (FspoolError, OSError) as error:
        refusal = (
            error
            if isinstance(error, FspoolError)
            else StorageError.from_os(f"read the definition of item {name}", error)
        )
        log.error("item %s: %s", name, refusal)
        item = Item(ItemDefinition(name=name, uuid=uuid4()), ItemState.FAILED, changed=changed)
        item.error = refusal
        return item
    return Item(definition, ItemState.READY, changed=changed)


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


def _observe(root: RootDirectory, item: Item, places: Mapping[str, FileInfo]) -> None:
    """Notice an item whose directory is gone, or is no longer a directory."""
    location = item.definition.location
    try:
        info = places.get(location) if "/" not in location else root.stat(location)
    except FileNotFoundError:
        info = None
    except OSError as error:
        item.state = ItemState.FAILED
        item.error = StorageError.from_os(f"look at the directory of item {item.name}", error)
        return
    if info is None:
        item.state = ItemState.MISSING
        item.error = FspoolError(
            f"the directory /{location} of item {item.name} is missing; put it back and refresh the pool, or "
            "delete the item"
        )
    elif not stat.S_ISDIR(info.mode):
        item.state = ItemState.FAILED
        item.error = FspoolError(
            f"/{location} in the pool should be the directory of item {item.name}, but is not a directory"
        )


def _discard_leftover(root: RootDirectory, entry: str) -> None:
    """Remove the temporary file of a write that was interrupted; anything else is left alone."""
    if entry.startswith("."):
        root.remove_file(f"{layout.ITEMS}/{entry}")
    else:
        log.warning(
            "%s is no definition of an item and is left alone", root.location(f"{layout.ITEMS}/{entry}")
        )


def load_trash(root: RootDirectory) -> list[TrashEntry]:
    """What is in the trash, oldest first. A record that cannot be read is logged and left alone."""
    entries = []
    for entry in root.names(layout.TRASH):
        if not entry.endswith(_SUFFIX) or entry.startswith("."):
            continue
        path = f"{layout.TRASH}/{entry}"
        try:
            entries.append(trashcan.decode(root.read(path, limit=_DEFINITION_LIMIT)))
        except (FspoolError, OSError) as error:
            log.error("%s: %s", root.location(path), error)
    entries.sort(key=lambda one: (one.deleted, one.name))
    return entries


def save_index(root: RootDirectory, items: Iterable[Item], now_ns: int) -> None:
    """Leave an index of the plain definitions for the next start."""
    plain = {
        f"{item.name}{_SUFFIX}": item.definition
        for item in items
        if item.state is not ItemState.FAILED and _is_plain(item.definition)
    }
    rows = {
        entry: [*_signature(info), *_to_row(plain[entry])]
        for entry, info in root.entries(layout.ITEMS)
        if entry in plain and now_ns - max(info.mtime_ns, info.ctime_ns) > _RACY
    }
    data = json.dumps({"version": _VERSION, "items": rows}, separators=(",", ":")).encode()
    root.write(layout.INDEX, data, replace=True, durable=False)


def _read_index(root: RootDirectory) -> dict[str, list[Any]]:
    try:
        index = json.loads(root.read(layout.INDEX, limit=_INDEX_LIMIT))
        if isinstance(index, dict) and index.get("version") == _VERSION:
            rows = index.get("items")
            if isinstance(rows, dict):
                return rows
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        log.warning("the index of pool %s is of no use and is made anew: %s", root.path, error)
    return {}


def _is_plain(definition: ItemDefinition) -> bool:
    return not (definition.metadata or definition.limits or definition.origin)


def _to_row(definition: ItemDefinition) -> list[str | int | None]:
    permissions = definition.permissions
    assert definition.uuid is not None
    return [
        definition.uuid.hex,
        definition.capacity,
        definition.path,
        permissions.mode,
        permissions.owner,
        permissions.group,
    ]


def _from_row(name: str, info: FileInfo, row: list[Any]) -> ItemDefinition | None:
    """The definition that `row` holds, or `None` when it is not of this very file."""
    try:
        if tuple(row[:4]) != _signature(info):
            return None
        uuid, capacity, path, mode, owner, group = row[4:]
        return ItemDefinition(
            name=name,
            uuid=UUID(hex=uuid),
            capacity=capacity,
            path=path,
            permissions=Permissions(mode=mode, owner=owner, group=group),
        )
    except (ValueError, TypeError, AttributeError):
        return None
