"""The index of a pool's plain definitions: what makes a start fast that has many items to read.

It lies beside the definitions, which are the truth. A row holds the inode number, size and times of
its file and counts only while all of these still match; a row written in the same moment as its
file (a tick of the clock could hide a later change) is left out. A lost or damaged index costs
time, nothing else.

The file is lines of JSON: a head, then lists of rows, short enough that reading or writing one does
not hold the interpreter for long.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import FspoolError
from fspoolfs.model import formatting, values
from fspoolfs.model.definitions import ItemDefinition, Permissions
from fspoolfs.model.infos import FileInfo
from fspoolfs.names import check_item_path

log = logging.getLogger(__name__)

_HEAD = {"fspoolfs-index": 3}
_LIMIT = 256 << 20
_ROWS_PER_LINE = 200
#: Files younger than this when the index is written are left out, in nanoseconds: more than the
#: coarsest time stamps of the file systems in use.
_RACY = 2_000_000_000


def save(root: RootDirectory, definitions: Mapping[str, ItemDefinition], now_ns: int) -> None:
    """Leave an index of `definitions`, by the names of their files; those not plain are left out."""
    rows = [
        [entry, info.inode, info.size, info.mtime_ns, info.ctime_ns, *_to_row(definitions[entry])]
        for entry, info in root.entries(layout.ITEMS)
        if entry in definitions
        and now_ns - max(info.mtime_ns, info.ctime_ns) > _RACY
        and is_plain(definitions[entry])
    ]
    lines = [json.dumps(_HEAD)]
    lines.extend(
        json.dumps(rows[start : start + _ROWS_PER_LINE], separators=(",", ":"))
        for start in range(0, len(rows), _ROWS_PER_LINE)
    )
    data = "\n".join(lines).encode()
    if data != _saved(root):  # what was only started and stopped stays as it is
        root.write(layout.INDEX, data, replace=True, durable=False)


def _saved(root: RootDirectory) -> bytes | None:
    try:
        return root.read(layout.INDEX, limit=_LIMIT)
    except OSError:
        return None


def is_plain(definition: ItemDefinition) -> bool:
    """Whether a row says all there is to say of it."""
    return not (definition.metadata or definition.limits or definition.origin or definition.idmap)


def _to_row(definition: ItemDefinition) -> list[str | int | None]:
    permissions = definition.permissions
    assert definition.uuid is not None
    return [
        definition.uuid.int,
        definition.capacity,
        None if definition.soft is None else formatting.format_soft(definition.soft),
        definition.files,
        definition.path,
        permissions.mode,
        permissions.owner,
        permissions.group,
    ]


class Index:
    """The rows of a saved index."""

    def __init__(self, root: RootDirectory) -> None:
        self._rows: dict[str, list[Any]] = {}
        #: The same few permissions stand in most rows, and are kept once.
        self._permissions: dict[tuple[int | None, int | None, int | None], Permissions] = {}
        try:
            head, *lines = root.read(layout.INDEX, limit=_LIMIT).split(b"\n")
            if json.loads(head) == _HEAD:
                for line in lines:
                    self._rows.update((row[0], row) for row in json.loads(line))
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, IndexError, OSError) as error:
            log.warning("the index of %s is of no use and will be made anew: %s", root.path, error)

    def find(self, entry: str, name: str, info: FileInfo) -> ItemDefinition | None:
        """The definition in the file called `entry`, or `None` when the index does not know it."""
        row = self._rows.pop(entry, None)  # what has been used makes room for what it became
        if row is None:
            return None
        try:
            _, inode, size, mtime_ns, ctime_ns, uuid, *sizes, path, mode, owner, group = row
            capacity, soft, files = sizes
            if (inode, size, mtime_ns, ctime_ns) != (info.inode, info.size, info.mtime_ns, info.ctime_ns):
                return None
            if path is not None:
                path = check_item_path(path)
            if (capacity is not None and int(capacity) <= 0) or (files is not None and int(files) <= 0):
                return None
            return ItemDefinition(
                name=name,
                uuid=UUID(int=uuid),
                capacity=capacity,
                soft=None if soft is None else values.soft_limit(soft),
                files=files,
                path=path,
                permissions=self._share(mode, owner, group),
            )
        except (ValueError, TypeError, AttributeError, FspoolError):
            return None

    def _share(self, mode: int | None, owner: int | None, group: int | None) -> Permissions:
        key = (mode, owner, group)
        found = self._permissions.get(key)
        if found is None:
            if not all(value is None or int(value) >= 0 for value in key):
                raise ValueError(f"{key} are no mode, owner and group")
            found = self._permissions[key] = Permissions(mode=mode, owner=owner, group=group)
        return found
