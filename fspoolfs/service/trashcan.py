"""What is kept beside the data of a deleted item: its definition, its name in the trash, the time."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from xml.sax.saxutils import quoteattr

from fspoolfs.errors import CorruptError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service.intents import open_envelope
from fspoolfs.service.objects import TrashEntry


def encode(document: bytes, *, name: str, deleted: int) -> bytes:
    """`document` is the formatted definition, `deleted` seconds since the epoch."""
    return f'<trashed name={quoteattr(name)} deleted="{deleted}">\n'.encode() + document + b"</trashed>\n"


def decode(data: bytes) -> TrashEntry:
    """Raises `CorruptError`."""
    element, definition = open_envelope(data, "trashed")
    try:
        return TrashEntry(element.get("name", ""), definition, int(element.get("deleted", "")))
    except ValueError as error:
        raise CorruptError(f"a trash record that cannot be understood: {error}") from error


def free_name(definition: ItemDefinition, deleted: int, taken: Collection[str]) -> str:
    """The item's own name, or, while that one is taken, with the time and a number behind it."""
    if definition.name not in taken:
        return definition.name
    # Names in the trash may be longer than an item's, which leaves room for the suffix.
    stamped = f"{definition.name}@{datetime.fromtimestamp(deleted, UTC):%Y%m%d-%H%M%S}"
    name, count = stamped, 2
    while name in taken:
        name, count = f"{stamped}-{count}", count + 1
    return name
