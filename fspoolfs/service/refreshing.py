"""Takes in what somebody changed in a pool's storage behind the daemon's back."""

from __future__ import annotations

from fspoolfs.model.states import ItemState
from fspoolfs.service import catalogue
from fspoolfs.service.context import Context
from fspoolfs.service.events import Event
from fspoolfs.service.jobs import Job
from fspoolfs.service.objects import Item, Pool

#: States of items whose definition on the storage is not what counts.
_UNSETTLED = (ItemState.CREATING, ItemState.BUSY)


async def refresh(pool: Pool, context: Context, job: Job) -> None:
    """Read the definitions anew and compare; items that are worked on meanwhile are left alone.

    What the daemon itself knows of them is newer than what was read.
    """
    attached, definition = pool.active(), pool.definition

    def look() -> list[Item]:
        attached.source.verify(definition, attached.root)
        pool.space = attached.root.space()
        return catalogue.load_items(attached.root).items

    # Snapshots are not looked for: nobody but fspoolfs can get at them.
    known = {item.name: item.definition for item in attached.items.values()}
    with attached.observed() as touched:
        found = await context.in_thread(pool, lambda progress: look(), job.progress)
    worked_on = touched | {
        item.name
        for item in attached.items.values()
        if item.state in _UNSETTLED or item.definition is not known.get(item.name)
    }
    seen = {item.name: item for item in found if item.name not in worked_on}
    for item in list(attached.items.values()):
        now = seen.pop(item.name, None)
        if item.name in worked_on or attached.locks.held(item.name):
            continue
        if now is None:
            attached.drop(item)
            context.events.publish(
                Event(kind="item-deleted", pool=pool.name, item=item.name, number=item.number)
            )
        elif now.definition != item.definition or now.state is not item.state:
            attached.drop(item)
            item.definition, item.state = now.definition, now.state
            item.error, item.problem, item.unreadable = now.error, now.problem, now.unreadable
            item.unlimited = None  # limits that are not in force are tried again by who hears of it
            attached.put(item)
            context.events.publish(Event(kind="item-changed", pool=pool.name, item=item.name))
    for name, item in seen.items():
        if not attached.locks.held(name):
            attached.put(item)
            context.events.publish(Event(kind="item-created", pool=pool.name, item=name))
    attached.accounts.renew(
        (item.definition for item in attached.items.values() if item.state is not ItemState.CREATING),
        (entry.definition for entry in attached.trash.values()),
    )
    if attached.membership is not None:
        attached.membership.committer.count_soon()
