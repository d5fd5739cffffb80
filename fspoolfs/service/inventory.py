"""The `listing` of a pool: all its items in one read, for who would otherwise open files of each.

A line of JSON an item, sorted by name, so that a reader may take one after the other.
"""

from __future__ import annotations

import json
from typing import Final

import trio

from fspoolfs.model.states import ItemState
from fspoolfs.service import reports
from fspoolfs.service.counting import Counts
from fspoolfs.service.objects import Item, Pool

#: After so many items other requests have a turn.
_TURN: Final = 500
#: One encoder for all: `json.dumps` makes a new one each time it is told anything.
_encode: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_TROUBLE: Final = (ItemState.FAILED, ItemState.MISSING)


async def listing(pool: Pool, counts: Counts) -> str:
    """Sizes are bytes, and what nobody knows is null."""
    await counts.refresh([pool])
    lines = []
    for number, name in enumerate(sorted(pool.items)):
        if number % _TURN == _TURN - 1:
            await trio.lowlevel.checkpoint()
        item = pool.items.get(name)
        if item is not None:
            lines.append(_encode(_facts(pool, item)))
    return "".join(f"{line}\n" for line in lines)


def _facts(pool: Pool, item: Item) -> dict[str, str | int | None]:
    definition, permissions = item.definition, item.definition.permissions
    known = item.counted or (item.measured.usage if item.measured else None)
    return {
        "name": item.name,
        "uuid": str(item.uuid),
        "state": item.state.value,
        "owner": permissions.owner,
        "group": permissions.group,
        "mode": None if permissions.mode is None else f"{permissions.mode:04o}",
        "capacity": definition.capacity,
        "soft": definition.soft_bytes,
        "allocation": None if known is None else known.allocation,
        "files": definition.files,
        "inodes": None if known is None else known.inodes,
        "snapshots": len(item.snapshots),
        "path": reports.data_path(pool, item),
        "problem": item.problem.sentence if item.problem is not None and item.state in _TROUBLE else None,
    }
