"""Says again and again that this host lives, and which items it uses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from uuid import UUID

import trio

from fspoolfs.backends import layout
from fspoolfs.errors import FspoolError
from fspoolfs.model.infos import MountUse
from fspoolfs.model.states import PoolState
from fspoolfs.service import usage
from fspoolfs.service.context import Context
from fspoolfs.service.hosts.membership import Membership
from fspoolfs.service.hosts.presence import RENEWAL
from fspoolfs.service.objects import Attached, Pool

log = logging.getLogger(__name__)

_BY_UUID = tuple(f"{place}/" for place in (layout.SNAPSHOTS, layout.TRASH))


async def renew(pool: Pool, attached: Attached, membership: Membership, context: Context) -> None:
    """Until cancelled. A host that was put out makes no more changes, and its pool fails."""
    while True:
        if pool.state is PoolState.ACTIVE:
            try:
                await _renew_once(pool, attached, membership, context)
            except OSError as error:
                log.warning("pool %s: no sign of life could be given: %s", pool.name, error)
                context.suspect(pool)
            except FspoolError as error:
                membership.committer.broken = error
                context.suspect(pool)
        await trio.sleep(RENEWAL)


async def _renew_once(pool: Pool, attached: Attached, membership: Membership, context: Context) -> None:
    def find() -> list[MountUse]:
        return usage.of_pool(context.finder.uses(attached.root.path, lately=True))

    found = await trio.to_thread.run_sync(find, limiter=attached.limiter, abandon_on_cancel=True)
    used = used_items(found, {item.definition.location: item.uuid for item in pool.items.values()})
    await trio.to_thread.run_sync(
        membership.presence.renew, used, limiter=attached.limiter, abandon_on_cancel=True
    )


def used_items(uses: Sequence[MountUse], items: Mapping[str, UUID]) -> dict[UUID, list[MountUse]]:
    """The uses by item, which `items` has by place; those of its snapshots and of deleted ones, too."""
    found: dict[UUID, list[MountUse]] = {}
    for use in uses:
        uuid = _item_at(use.inside, items)
        if uuid is not None:
            found.setdefault(uuid, []).append(use)
    return found


def _item_at(inside: str, items: Mapping[str, UUID]) -> UUID | None:
    for place in _BY_UUID:
        if inside.startswith(place):
            with suppress(ValueError):
                return UUID(inside.removeprefix(place).partition("/")[0])
    while inside:
        if inside in items:
            return items[inside]
        inside = inside.rpartition("/")[0]
    return None
