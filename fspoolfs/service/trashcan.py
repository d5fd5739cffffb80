"""The names of deleted items: what the trash shows, and what a record's file says beside its content.

A record is the definition file of the item, moved as it was: deleting writes nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from fspoolfs.backends import layout
from fspoolfs.errors import CorruptError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service.objects import TrashEntry

_RECORD = re.compile(r"(?P<uuid>[0-9a-f-]{36})\.(?P<deleted>\d{1,12})(?P<suffix>@[0-9-]+)?\.xml")


def new_entry(definition: ItemDefinition, deleted: int, taken: Collection[str]) -> TrashEntry:
    """An entry for an item deleted at `deleted` (seconds since the epoch); names `taken` are avoided."""
    name = _free_name(definition.name, deleted, taken)
    suffix = name.removeprefix(definition.name)
    return TrashEntry(name, definition, deleted, f"{layout.TRASH}/{definition.uuid}.{deleted}{suffix}.xml")


def entry_of(file: str, definition: ItemDefinition, taken: Collection[str]) -> TrashEntry:
    """The entry whose record is called `file` and holds `definition`.

    Raises `CorruptError` when the file is not called like this item's record.
    """
    match = _RECORD.fullmatch(file)
    if match is None or match["uuid"] != str(definition.uuid):
        raise CorruptError(
            f"what defines item {definition.name} of uuid {definition.uuid} is not named like its record"
        )
    deleted, name = int(match["deleted"]), definition.name + (match["suffix"] or "")
    if name in taken:
        name = _free_name(definition.name, deleted, taken)
    return TrashEntry(name, definition, deleted, f"{layout.TRASH}/{file}")


def _free_name(name: str, deleted: int, taken: Collection[str]) -> str:
    """The item's own name, or, while that one is taken, with the time and a number behind it."""
    if name not in taken:
        return name
    # Names in the trash may be longer than an item's, which leaves room for the suffix.
    stamped = f"{name}@{datetime.fromtimestamp(deleted, UTC):%Y%m%d-%H%M%S}"
    free, count = stamped, 2
    while free in taken:
        free, count = f"{stamped}-{count}", count + 1
    return free
