"""What is kept beside the data of a deleted item: its definition, its name in the trash, the time."""

from __future__ import annotations

import errno
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from xml.sax.saxutils import quoteattr

from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import CorruptError, FspoolError
from fspoolfs.model import documents
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service.intents import open_envelope
from fspoolfs.service.objects import TrashEntry


def encode(document: bytes, *, name: str, deleted: int) -> bytes:
    """`document` is the formatted definition, `deleted` seconds since the epoch."""
    return f'<trashed name={quoteattr(name)} deleted="{deleted}">\n'.encode() + document + b"</trashed>\n"


def keep(root: RootDirectory, *, definition: str, target: str, record: bytes) -> bool:
    """Put `record` at `target`; on a full storage move the file `definition` there instead.

    Returns whether the record was written; if not, there is no `definition` any more.
    """
    try:
        root.write(target, record, replace=True, durable=False)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        with suppress(FileExistsError, FileNotFoundError):
            root.rename(definition, target)
        return False
    return True


def decode(data: bytes, moved: int) -> TrashEntry:
    """What `encode` or `keep` left; `moved` is when, in seconds, should the file not say it.

    Raises `CorruptError`.
    """
    if not data.startswith(b"<trashed "):
        try:
            plain = documents.parse_item(data)
        except FspoolError as error:
            raise CorruptError(f"a trash record that cannot be understood: {error}") from error
        return TrashEntry(plain.name, plain, moved)
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
